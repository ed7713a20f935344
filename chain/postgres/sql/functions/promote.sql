-- Makes this node the head of an epoch, and writes that into its log. Again with the same epoch and id: no
-- more than the first time. It may take writes before `p_lease_until`, at least a reading of this server's clock
-- since its start; null means without end. Refuses while it has promised not to be promoted, and at another tip
-- than the one that it was granted the epoch at: a log that went back would give that place to another event, too.
-- The event is dated `p_granted_clock`, its own clock at the grant, so that the same promotion is the same event
-- whenever it is written. Without a grant (a node that no registry governs) these are null.
create or replace function chain.promote(
    p_epoch            bigint,
    p_promotion        uuid,
    p_data             bytea,
    p_lease_until      timestamptz,
    p_granted_position bigint,
    p_granted_epoch    bigint,
    p_granted_clock    timestamptz
)
returns table (tip_position bigint, tip_epoch bigint)
language plpgsql
as $$
#variable_conflict use_column
declare
    n     chain.node;
    v_now timestamptz;
begin
    perform chain.durable();
    if exists (select from chain.node h  -- as far as can be seen from here it will be
                where p_epoch >= h.epoch and p_epoch > h.tip_epoch and p_epoch > h.reign
                  and h.tip_position = coalesce(p_granted_position, h.tip_position)
                  and h.tip_epoch = coalesce(p_granted_epoch, h.tip_epoch)) then
        perform chain.end_copies();
    end if;
    select * into n from chain.node for no key update;

    if n.reign = p_epoch and n.promotion = p_promotion and n.role = 'head' and n.epoch = p_epoch then
        return query select n.tip_position, n.tip_epoch;
        return;
    end if;
    if p_epoch < n.epoch or p_epoch <= n.tip_epoch or p_epoch <= n.reign then
        perform chain.fail('GC007',
            format('node %s knows epoch %s and can''t be promoted in epoch %s', n.node, n.epoch, p_epoch),
            jsonb_build_object('epoch', n.epoch));
    end if;

    if (n.tip_position, n.tip_epoch) <> (p_granted_position, p_granted_epoch) then
        perform chain.fail('GC007',
            format('node %s is at %s@%s and was granted epoch %s at %s@%s',
                   n.node, n.tip_position, n.tip_epoch, p_epoch, p_granted_position, p_granted_epoch),
            jsonb_build_object('epoch', n.epoch));
    end if;

    if p_lease_until < pg_postmaster_start_time() then  -- late: what its caller saw may have been lost since
        perform chain.fail('GC007',
            format('the server of node %s restarted at %s, since the reading of its clock at %s',
                   n.node, pg_postmaster_start_time(), p_lease_until),
            jsonb_build_object('epoch', n.epoch));
    end if;

    if clock_timestamp() < n.promised then
        perform chain.fail('GC010',
            format('node %s has promised its head not to be promoted before %s', n.node, n.promised),
            p_hint => 'the head is alive and waits for the registry');
    end if;

    if chain.loading() then
        perform chain.fail('GC007', format('node %s is being loaded and can''t be promoted yet', n.node),
            jsonb_build_object('epoch', n.epoch));
    end if;

    v_now := coalesce(p_granted_clock, greatest(clock_timestamp(), n.clock));
    insert into chain.event (position, epoch, stream, revision, id, type, data, metadata, recorded_at)
    values (n.tip_position + 1, p_epoch, '$epoch',
            coalesce((select max(e.revision) + 1 from chain.event e where e.stream = '$epoch'), 0),
            p_promotion, 'EpochStarted', p_data, '', v_now);

    update chain.node
       set role = 'head', epoch = p_epoch, reign = p_epoch, promotion = p_promotion, upstream = null,
           tip_position = n.tip_position + 1, tip_epoch = p_epoch, clock = greatest(v_now, n.clock),
           seen = clock_timestamp(), lease_until = coalesce(p_lease_until, 'infinity');
    delete from chain.alive;
    insert into chain.alive values (p_epoch, pg_postmaster_start_time());
    delete from chain.progress;
    perform pg_notify('chain_log', (n.tip_position + 1)::text);
    return query select n.tip_position + 1, p_epoch;
end
$$;
