-- Locks the node's row and returns it, if it follows this upstream in this epoch and its tip is as told;
-- raises GC007 if not. So a stale or a second daemon can do no harm.
create or replace function chain.follower(p_epoch bigint, p_upstream text, p_tip bigint, p_tip_epoch bigint)
returns chain.node
language plpgsql
as $$
declare
    n chain.node;
begin
    select * into n from chain.node for no key update;

    if n.epoch is distinct from p_epoch or n.tip_position is distinct from p_tip
       or n.tip_epoch is distinct from p_tip_epoch
       or n.upstream is null or n.upstream is distinct from p_upstream then
        perform chain.fail('GC007',
            format('node %s is %s of %s in epoch %s at %s@%s; the link is from %s in epoch %s at %s@%s',
                   n.node, n.role, coalesce(n.upstream, 'nobody'), n.epoch, n.tip_position,
                   n.tip_epoch, p_upstream, p_epoch, p_tip, p_tip_epoch),
            jsonb_build_object('epoch', n.epoch, 'upstream', n.upstream, 'tip', n.tip_position));
    end if;
    perform chain.durable();
    return n;
end
$$;
