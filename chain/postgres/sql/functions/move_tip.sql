-- Moves the tip of a node, whose row is locked, over the `p_count` events that were put behind it. Positions are unique
-- and all below the old tip are taken, so the count and the last position together prove that there is no hole.
create or replace function chain.move_tip(n chain.node, p_count bigint)
returns table (tip_position bigint, tip_epoch bigint)
language plpgsql
as $$
#variable_conflict use_column
declare
    v_last record;
begin
    select e.position, e.epoch into v_last from chain.event e order by e.position desc limit 1;

    if coalesce(v_last.position, 0) is distinct from n.tip_position + p_count then
        perform chain.fail('GC008',
            format('a batch of %s events behind position %s ends at position %s',
                   p_count, n.tip_position, v_last.position),
            p_hint => 'the source has a hole: chainctl verify shows where');
    end if;
    if v_last.epoch > n.epoch then
        perform chain.fail('GC007',
            format('the batch reaches epoch %s; node %s knows epoch %s', v_last.epoch, n.node, n.epoch),
            p_hint => 'the link must compare the two logs again before it goes on');
    end if;
    if v_last.epoch < n.tip_epoch then
        perform chain.fail('GC008',
            format('position %s is of epoch %s, behind a tip of epoch %s',
                   v_last.position, v_last.epoch, n.tip_epoch));
    end if;
    if p_count > 0 then
        update chain.node set tip_position = v_last.position, tip_epoch = v_last.epoch;
        perform pg_notify('chain_log', v_last.position::text);
    end if;
    return query select n.tip_position + p_count, coalesce(v_last.epoch, 0);
end
$$;
