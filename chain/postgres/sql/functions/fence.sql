-- Promises to refuse everything older than an epoch, and returns the tip: final for all older epochs.
create or replace function chain.fence(p_epoch bigint)
returns table (tip_position bigint, tip_epoch bigint)
language sql
as $$
    select chain.durable();

    update chain.node
       set epoch = greatest(epoch, p_epoch)
    returning tip_position, tip_epoch
$$;
