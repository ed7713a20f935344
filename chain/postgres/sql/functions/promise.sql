-- Promises not to be promoted for a while: what lets a head go on that has lost the registry. A node that knows
-- a newer epoch, or is no follower, promises nothing.
create or replace function chain.promise(p_epoch bigint, p_for interval)
returns void
language plpgsql
as $$
declare
    n chain.node;
begin
    perform chain.durable();
    select * into n from chain.node for no key update;

    if n.epoch > p_epoch or n.upstream is null then
        perform chain.fail('GC007',
            format('node %s is %s in epoch %s and promises nothing to a head of epoch %s',
                   n.node, n.role, n.epoch, p_epoch),
            jsonb_build_object('epoch', n.epoch));
    end if;
    update chain.node set promised = greatest(promised, clock_timestamp() + p_for);
end
$$;
