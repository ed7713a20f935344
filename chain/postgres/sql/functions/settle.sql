-- Makes what this statement sees durable, and answers true. A head commits an append before it is flushed, so that
-- the next one need not wait for the disk (chain.append_and_flush); whoever reads a node's log asks for this in the
-- same statement, and so hands on nothing that a crash could still take back:
--
--     select … from chain.event where position > $1 and (select chain.settle()) order by position
--
-- The write-ahead log is sequential: what is flushed now holds all that was visible when the statement began. If a
-- standby has to confirm commits, this transaction's own commit waits for it; its rows count from then on.
create or replace function chain.settle()
returns boolean
language plpgsql
security definer  -- a role that may only read must be able to: all it can bring about is a flush
as $$
declare
    v_lsn pg_lsn;
begin
    if current_setting('synchronous_standby_names') <> '' or current_setting('server_version_num')::int < 170000 then
        perform chain.durable();
        perform pg_logical_emit_message(true, 'geochain', '');
    elsif pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn() then
        v_lsn := pg_logical_emit_message(false, 'geochain', '', true);
    end if;
    return true;
end
$$;
