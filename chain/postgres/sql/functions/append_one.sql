-- Appends one event to a stream that ends where it is expected to: what most appends are. What it needs to know is
-- looked up before the node's row is locked, so that others wait for two writes and a commit, and for no flush.
--
-- Answers nulls if it is no such append, or if this node may not be written to: `append_and_flush` judges then. So it
-- does after a unique violation, which says that another append came in between. Nothing can have gone in between:
-- only a follower's log is cut back, and to be head again takes a new reign. `r_lease_left` is as in `append_group`.
-- Not to be called within a transaction block.
create or replace procedure chain.append_one(
    p_stream           text,
    p_expected         bigint,  -- -1 for a stream that has no events yet
    p_id               uuid,
    p_type             text,
    p_data             bytea,
    p_metadata         bytea,
    inout r_position   bigint           default null,
    inout r_epoch      bigint           default null,
    inout r_lease_left double precision default null
)
language plpgsql
as $$
declare
    v_reign   bigint;
    v_last    bigint;
    v_seen    boolean;
    v_clock   timestamptz;
    v_seen_at timestamptz;
    v_until   timestamptz;
    v_now     timestamptz;
    v_set     text;
begin
    select n.reign,
           coalesce((select e.revision from chain.event e
                      where e.stream = p_stream and e.revision >= p_expected
                      order by e.revision desc limit 1), -1),
           exists (select from chain.event e where e.id = p_id)
      into v_reign, v_last, v_seen
      from chain.node n
     where exists (select from chain.alive a
                    where a.reign = n.reign and a.started = pg_catalog.pg_postmaster_start_time());
    if v_last is distinct from p_expected or v_seen or p_stream like '$%' then
        return;
    end if;

    -- What `head` and `leased` look at, asked of the row as it is when it is had. The clock is looked at again below:
    -- whoever waited for one that changed nothing still has the reading from before.
    update chain.node n
       set tip_position = n.tip_position + 1, tip_epoch = n.epoch,
           clock = greatest(pg_catalog.clock_timestamp(), n.clock),
           seen = greatest(pg_catalog.clock_timestamp(), n.seen)
     where n.role = 'head' and n.reign = v_reign and n.reign >= n.epoch
       and pg_catalog.clock_timestamp() >= n.seen and pg_catalog.clock_timestamp() < n.lease_until
    returning n.tip_position, n.epoch, n.clock, n.seen, n.lease_until
         into r_position, r_epoch, v_clock, v_seen_at, v_until;
    if r_position is null then
        return;
    end if;
    insert into chain.event (position, epoch, stream, revision, id, type, data, metadata, recorded_at)
    values (r_position, r_epoch, p_stream, p_expected + 1, p_id, p_type, p_data, p_metadata, v_clock);
    v_now := pg_catalog.clock_timestamp();
    if v_now < v_seen_at or v_now >= v_until then
        rollback;
        r_position := null;
        return;
    end if;
    if v_until <> 'infinity' then
        r_lease_left := extract(epoch from v_until - v_now);
    end if;

    v_set := pg_catalog.set_config('synchronous_commit', 'off', true);
    commit;
    if pg_catalog.current_setting('synchronous_standby_names') = '' then  -- as in `append_and_flush`
        v_set := pg_catalog.set_config('synchronous_commit', 'off', true);
    end if;
    v_set := chain.settle()::text;
    v_set := pg_catalog.pg_notify('chain_log', r_position::text)::text;
end
$$;
