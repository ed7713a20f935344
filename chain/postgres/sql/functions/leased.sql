-- Seconds that are left of the head's lease, null if it runs without one; raises GC004 if there are none.
create or replace function chain.leased(n chain.node)
returns double precision
language plpgsql
as $$
begin
    if n.lease_until = 'infinity' then
        return null;
    elsif clock_timestamp() >= n.lease_until then
        perform chain.fail('GC004', format('the lease of node %s ended at %s', n.node, n.lease_until),
            p_hint => 'its daemon renews it by itself; if that is down, start it');
    end if;
    return extract(epoch from n.lease_until - clock_timestamp());
end
$$;
