-- Gives up the dead branch behind a fork: moves its events out of the log and keeps them, in one transaction,
-- so that there is no way to truncate without keeping. Returns how many events that were.
create or replace function chain.give_up(p_epoch bigint, p_upstream text, p_tip bigint, p_fork bigint)
returns bigint
language plpgsql
as $$
#variable_conflict use_column
declare
    n       chain.node := chain.follower(p_epoch, p_upstream, p_tip);
    v_moved bigint;
begin
    with moved as (
        delete from chain.event where position > p_fork returning *
    )
    insert into chain.dead (position, epoch, stream, revision, id, type, data, metadata, recorded_at, fork, node)
    select m.*, p_fork, n.node from moved m
        on conflict do nothing;
    get diagnostics v_moved = row_count;

    update chain.node
       set tip_position = p_fork,
           tip_epoch    = coalesce((select e.epoch from chain.event e where e.position = p_fork), 0);
    perform pg_notify('chain_log', p_fork::text);
    return v_moved;
end
$$;
