-- No function of ours may ever resolve a name in a schema that somebody else can write to. A procedure that commits
-- can't have a setting of its own: it names everything with its schema instead.
do $$
declare
    f regprocedure;
begin
    for f in select oid::regprocedure from pg_proc where pronamespace = 'chain'::regnamespace and prokind = 'f' loop
        execute format('alter function %s set search_path = pg_catalog, pg_temp', f);
    end loop;
end
$$;
revoke all on schema chain from public;
revoke execute on all routines in schema chain from public;
