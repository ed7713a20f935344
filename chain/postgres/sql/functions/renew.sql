-- Lets this head take writes until `p_for` after `p_read_at`, a reading of this server's clock that was taken
-- before the registry renewed the lease; null means without end. Never makes a running lease shorter. Not
-- flushed: a server that crashes takes no writes anyway.
create or replace function chain.renew(p_epoch bigint, p_read_at timestamptz, p_for interval)
returns void
language plpgsql
as $$
declare
    v_alone boolean := pg_current_xact_id_if_assigned() is null;
    n       chain.node := chain.head();
begin
    if v_alone then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    if n.epoch <> p_epoch or chain.clock_is_back(p_read_at) then
        perform chain.fail('GC004',
            format('node %s is in epoch %s, at %s; the renewal is for epoch %s, read at %s',
                   n.node, n.epoch, clock_timestamp(), p_epoch, p_read_at));
    end if;
    update chain.node
       set seen        = greatest(n.seen, clock_timestamp()),
           lease_until = case when p_for is null then 'infinity'
                              when n.lease_until = 'infinity' then p_read_at + p_for
                              else greatest(n.lease_until, p_read_at + p_for) end;
end
$$;
