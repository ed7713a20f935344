-- Applies a batch of a few events in one call, under the lock of the node's row from the first to the last: it takes
-- less than beginning beside another would.
create or replace function chain.apply(
    p_epoch       bigint,
    p_upstream    text,
    p_after       bigint,
    p_after_epoch bigint,
    p_position    bigint[],
    p_of_epoch    bigint[],
    p_stream      text[],
    p_revision    bigint[],
    p_id          uuid[],
    p_type        text[],
    p_data        bytea[],
    p_metadata    bytea[],
    p_recorded_at timestamptz[]
)
returns table (tip_position bigint, tip_epoch bigint)
language plpgsql
set plan_cache_mode = force_generic_plan  -- planning would take longer than the rest
as $$
declare
    n chain.node := chain.follower(p_epoch, p_upstream, p_after, p_after_epoch);
begin
    insert into chain.event (position, epoch, stream, revision, id, type, data, metadata, recorded_at)
    select * from unnest(p_position, p_of_epoch, p_stream, p_revision, p_id, p_type, p_data, p_metadata, p_recorded_at);
    return query select * from chain.move_tip(n, cardinality(p_position)::bigint);
end
$$;
