-- Ends the copying into this node's log that is under way, whoever does it, and lets none begin before this transaction
-- has ended. To be called before the node's row is locked, by whatever makes the node another link's, or a head:
-- rows that a frozen or vanished copier left beyond the tip would be waited for by whoever writes there next.
create or replace function chain.end_copies()
returns void
language plpgsql
as $$
begin
    begin
        perform pg_terminate_backend(l.pid)
           from pg_locks l
          where l.locktype = 'advisory' and l.classid = 1734700899 and l.objid = 1668247673 and l.objsubid = 2
            and l.database = (select d.oid from pg_database d where d.datname = current_database())
            and l.pid <> pg_backend_pid();
    exception when insufficient_privilege then  -- another role's: it is waited for, no longer than for any lock
        null;
    end;
    perform pg_advisory_xact_lock(1734700899, 1668247673);
end
$$;
