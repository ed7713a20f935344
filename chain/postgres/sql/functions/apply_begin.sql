-- Opens the applying of a batch: locks the node's row and holds the link against it. Rows may then be copied
-- into chain.event, and apply_end closes, all in one transaction.
--
-- Without `p_flush` its commit does not wait for the disk: then the next batch is copied while this one is written
-- there. No reader is handed what a crash could take back, since readers of the log, and of its tip, ask for
-- chain.settle().
create or replace function chain.apply_begin(
    p_epoch       bigint,
    p_upstream    text,
    p_after       bigint,
    p_after_epoch bigint,
    p_flush       boolean
)
returns void
language plpgsql
as $$
begin
    perform chain.follower(p_epoch, p_upstream, p_after, p_after_epoch);
    if not p_flush then
        perform set_config('synchronous_commit', 'off', true);
    end if;
end
$$;
