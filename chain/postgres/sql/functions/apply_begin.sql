-- Opens the applying of a batch. Its rows may then be copied into chain.event, beyond the tip, where nobody sees them;
-- `apply_end` closes, all in one transaction. The node's row is not locked meanwhile, so batches may be copied beside
-- each other, and a copier that hangs stands in nobody's way: see `end_copies`.
create or replace function chain.apply_begin(p_epoch bigint, p_upstream text, p_after bigint, p_after_epoch bigint)
returns void
language plpgsql
as $$
begin
    lock table chain.copying in row exclusive mode;
    if not exists (select from chain.node n
                    where n.epoch = p_epoch and n.upstream = p_upstream and n.tip_position <= p_after) then
        perform chain.follower(p_epoch, p_upstream, p_after, p_after_epoch);  -- says what is wrong
    end if;
end
$$;
