-- Locks the node's row and returns it, if this node may take writes now; raises GC002 to GC005 if not.
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
    perform chain.durable();
    return n;
end
$$;
