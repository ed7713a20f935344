-- `append_group`, for many callers at a time: commits first, which lets the next one have the node's row, and then
-- waits until what it wrote is durable. Nobody has been told of it before that: not its caller, no listener, and no
-- reader, since readers ask for chain.settle(). Not to be called within a transaction block.
create or replace procedure chain.append_and_flush(
    p_streams          text[],
    p_stream           int[],
    p_expected         bigint[],
    p_count            int[],
    p_request          int[],
    p_id               uuid[],
    p_type             text[],
    p_data             bytea[],
    p_metadata         bytea[],
    inout r_outcome    text[]           default null,
    inout r_position   bigint[]         default null,
    inout r_revision   bigint[]         default null,
    inout r_epoch      bigint[]         default null,
    inout r_lease_left double precision default null
)
language plpgsql
as $$
declare
    g     record;
    v_set text;
begin
    -- Assignments, not `perform` and `select into`: those run the executor, for as much again as each call costs.
    g := chain.append_group(p_streams, p_stream, p_expected, p_count, p_request, p_id, p_type, p_data, p_metadata);
    r_outcome    := g.r_outcome;
    r_position   := g.r_position;
    r_revision   := g.r_revision;
    r_epoch      := g.r_epoch;
    r_lease_left := g.r_lease_left;

    v_set := pg_catalog.set_config('synchronous_commit', 'off', true);
    commit;
    if pg_catalog.current_setting('synchronous_standby_names') = '' then  -- else this commit waits for the standby
        v_set := pg_catalog.set_config('synchronous_commit', 'off', true);  -- a hint needs no flush, and queues for it
    end if;
    v_set := chain.settle()::text;
    if g.r_tip is not null then
        v_set := pg_catalog.pg_notify('chain_log', g.r_tip::text)::text;
    end if;
end
$$;
