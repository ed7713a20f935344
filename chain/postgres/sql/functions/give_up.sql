-- Gives up the dead branch behind a fork: moves its events out of the log and keeps them, in one transaction,
-- so that there is no way to truncate without keeping. Returns how many events that were. An event that an
-- earlier dead branch brought here already is kept once. What was verified of it is forgotten: the lock waits for
-- a `seal` that is under way, and lets none begin before this is over.
create or replace function chain.give_up(p_epoch bigint, p_upstream text, p_tip bigint, p_tip_epoch bigint, p_fork bigint)
returns bigint
language plpgsql
as $$
#variable_conflict use_column
declare
    n chain.node;
begin
    lock table chain.segment in share row exclusive mode;  -- first: who waits for it must hold up nobody else
    n := chain.follower(p_epoch, p_upstream, p_tip, p_tip_epoch);
    if p_fork not between 0 and n.tip_position then
        perform chain.fail('GC007',
            format('node %s ends at position %s and has no fork at %s', n.node, n.tip_position, p_fork));
    end if;

    delete from chain.segment where last > p_fork;
    with moved as (
        delete from chain.event where position > p_fork returning *
    )
    insert into chain.dead (position, epoch, stream, revision, id, type, data, metadata, recorded_at, fork, node)
    select m.*, p_fork, n.node from moved m
        on conflict do nothing;

    update chain.node
       set tip_position = p_fork,
           tip_epoch    = coalesce((select e.epoch from chain.event e where e.position = p_fork), 0);
    perform pg_notify('chain_log', p_fork::text);
    return n.tip_position - p_fork;
end
$$;
