-- Opens the applying of a batch: locks the node's row and holds the link against it. Rows may then be copied
-- into chain.event, and apply_end closes, all in one transaction.
create or replace function chain.apply_begin(p_epoch bigint, p_upstream text, p_after bigint, p_after_epoch bigint)
returns void
language plpgsql
as $$
begin
    perform chain.follower(p_epoch, p_upstream, p_after, p_after_epoch);
end
$$;
