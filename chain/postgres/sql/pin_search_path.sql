-- No function of ours may ever resolve a name in a schema that somebody else can write to.
do $$
declare
    f regprocedure;
begin
    for f in select oid::regprocedure from pg_proc where pronamespace = 'chain'::regnamespace loop
        execute format('alter function %s set search_path = pg_catalog, pg_temp', f);
    end loop;
end
$$;
revoke all on schema chain from public;
revoke execute on all functions in schema chain from public;
