-- Makes this node a follower of an upstream in an epoch. A head follows nobody within its own epoch.
create or replace function chain.follow_upstream(p_epoch bigint, p_upstream text, p_role text)
returns void
language plpgsql
as $$
declare
    n chain.node;
begin
    perform chain.durable();
    if exists (select from chain.node h  -- as far as can be seen from here it will be, and becomes another link's
                where p_epoch >= h.epoch and not (h.role = 'head' and p_epoch = h.reign)
                  and (h.epoch, h.upstream, h.role) is distinct from (p_epoch, p_upstream, p_role)) then
        perform chain.end_copies();
    end if;
    select * into n from chain.node for no key update;

    if p_epoch < n.epoch or (n.role = 'head' and p_epoch = n.reign) then
        perform chain.fail('GC007',
            format('node %s is %s in epoch %s and can''t follow %s in epoch %s',
                   n.node, n.role, n.epoch, p_upstream, p_epoch),
            jsonb_build_object('epoch', n.epoch));
    end if;
    update chain.node set role = p_role, epoch = p_epoch, upstream = p_upstream, lease_until = '-infinity';
    delete from chain.progress where epoch < p_epoch;
end
$$;
