-- Locks the node's row and returns it, if this node may take writes in its reign; raises GC002, GC003, GC004
-- or GC005 if not. Whether its lease runs is `chain.leased`'s to say.
create or replace function chain.head()
returns chain.node
language plpgsql
as $$
declare
    n chain.node;
begin
    select * into n from chain.node for no key update;

    if n.role <> 'head' then
        perform chain.fail('GC002',
            format('node %s is %s and takes no writes', coalesce(n.node, '(unnamed)'), n.role),
            jsonb_build_object('head', n.upstream));
    end if;
    if n.reign < n.epoch then
        perform chain.fail('GC003',
            format('node %s was head in epoch %s and is fenced by epoch %s', n.node, n.reign, n.epoch));
    end if;
    if chain.restarted(n.reign) then
        perform chain.fail('GC005',
            format('the server of node %s restarted since it became head in epoch %s', n.node, n.reign),
            p_hint => 'its daemon asks for a new epoch by itself; if it is down, start it');
    end if;
    if chain.clock_is_back(n.seen) then
        perform chain.fail('GC004',
            format('the clock of node %s runs %s behind what it was', n.node, n.seen - clock_timestamp()),
            p_hint => 'its daemon asks for a new epoch by itself; see to the clock of the machine');
    end if;
    return n;
end
$$;
