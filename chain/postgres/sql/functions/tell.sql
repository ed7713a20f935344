-- Records how far nodes downstream have the log. Told often and of no worth after a crash: not flushed, unless
-- the transaction has written something else before.
create or replace function chain.tell(p_nodes text[], p_positions bigint[], p_epochs bigint[])
returns void
language plpgsql
as $$
begin
    if pg_current_xact_id_if_assigned() is null then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    insert into chain.progress (node, position, epoch, told_at)
    select t.node, t.position, t.epoch, clock_timestamp()
      from unnest(p_nodes, p_positions, p_epochs) as t (node, position, epoch)
     order by t.node  -- so that two tellers can't lock each other out
        on conflict (node) do update
       set position = excluded.position, epoch = excluded.epoch, told_at = excluded.told_at;
    perform pg_notify('chain_log', '');  -- whoever tells it on waits for that
end
$$;
