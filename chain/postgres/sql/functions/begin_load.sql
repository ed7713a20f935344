-- Makes an empty follower ready for very many events: takes away the constraints that are looked up by stream and by
-- id, which cost more than all else while rows come in, and are made in a fraction of the time afterwards. Batches are
-- applied as ever; the node can't be promoted before `end_load`.
create or replace function chain.begin_load(p_epoch bigint, p_upstream text)
returns void
language plpgsql
as $$
begin
    perform chain.end_copies();  -- they hold the table, too
    perform chain.follower(p_epoch, p_upstream, 0, 0);
    alter table chain.event drop constraint if exists event_stream, drop constraint if exists event_id;
end
$$;
