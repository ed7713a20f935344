-- Closes the applying of a batch: locks the node's row, holds the link against it, and moves the tip over the `p_count`
-- rows that COPY says it copied.
--
-- Without `p_flush` the commit does not wait for the disk: then the next batch is copied while this one is written
-- there. No reader is handed what a crash could take back, since readers of the log, and of its tip, ask for
-- chain.settle().
create or replace function chain.apply_end(
    p_epoch       bigint,
    p_upstream    text,
    p_after       bigint,
    p_after_epoch bigint,
    p_count       bigint,
    p_flush       boolean
)
returns table (tip_position bigint, tip_epoch bigint)
language plpgsql
as $$
declare
    n chain.node := chain.follower(p_epoch, p_upstream, p_after, p_after_epoch);
begin
    if not p_flush then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    return query select * from chain.move_tip(n, p_count);
end
$$;
