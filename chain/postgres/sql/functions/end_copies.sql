-- Ends the copying into this node's log that is under way, whoever does it, and lets none begin before this transaction
-- has ended. To be called before the node's row is locked, by whatever makes the node another link's, or a head, and by
-- a link that could not go on: rows that a frozen or vanished copier left beyond the tip would be waited for by whoever
-- writes there next. A session of a role that may not be ended is waited for, no longer than for any lock.
create or replace function chain.end_copies()
returns void
language plpgsql
as $$
declare
    v_pid int;
begin
    for v_pid in
        select l.pid
          from pg_locks l
         where l.locktype = 'relation' and l.relation = 'chain.copying'::regclass
           and l.database = (select d.oid from pg_database d where d.datname = current_database())
           and l.mode = 'RowExclusiveLock' and l.granted and l.pid <> pg_backend_pid()
    loop
        begin
            perform pg_terminate_backend(v_pid);
        exception when insufficient_privilege then
            null;
        end;
    end loop;
    lock table chain.copying in share row exclusive mode;
end
$$;
