-- Appends many requests in one transaction; one request's conflict fails that request alone.
--
-- Requests are told apart by number, 1 to n. Per distinct stream: its name. Per request: which stream, what
-- revision it expects (-1 none yet, -2 any) and its count of events. Per event, in the order of the requests:
-- its request, id, type, data, metadata. Event ids are distinct within a call.
--
-- Answers one row a request: outcome `appended`, `repeated` (the same ids were appended before, at the same
-- place: here is the first answer) or `conflict`, with the stream's last revision as it is afterwards; and how many
-- seconds were left of the lease, null without one. An answer that took longer than that proves nothing: the
-- caller must not count it as an acknowledgement.
create or replace function chain.append_group(
    p_streams  text[],
    p_stream   int[],
    p_expected bigint[],
    p_count    int[],
    p_request  int[],
    p_id       uuid[],
    p_type     text[],
    p_data     bytea[],
    p_metadata bytea[]
)
returns table (request int, outcome text, first_position bigint, last_revision bigint, in_epoch bigint,
               lease_left double precision)
language plpgsql
set enable_seqscan = off  -- plans are kept: one that was made when the log was short must not scan a long log
as $$
#variable_conflict use_column
declare
    n          chain.node := chain.head();
    v_left     double precision := chain.leased(n);
    v_now      timestamptz := greatest(clock_timestamp(), n.clock);
    v_last     bigint[];                                    -- per stream: last revision, as we go
    v_known    jsonb;                                       -- per request with known ids: what is known
    v_outcome  text[]   := array_fill('conflict'::text, array[cardinality(p_stream)]);
    v_position bigint[] := array_fill(null::bigint, array[cardinality(p_stream)]);
    v_revision bigint[] := array_fill(null::bigint, array[cardinality(p_stream)]);
    v_epoch    bigint[] := array_fill(n.epoch, array[cardinality(p_stream)]);
    v_shift    bigint[] := array_fill(null::bigint, array[cardinality(p_stream)]);  -- position less event number
    v_start    bigint[] := array_fill(null::bigint, array[cardinality(p_stream)]);  -- revision less event number
    v_tip      bigint   := n.tip_position;
    v_events   bigint   := 0;
    s          int;
    k          jsonb;
begin
    v_last := array(
        select coalesce((select e.revision from chain.event e
                          where e.stream = u.stream order by e.revision desc limit 1), -1)
          from unnest(p_streams) with ordinality as u (stream, ord)
         order by u.ord
    );

    -- A retry: which requests bring ids that the log holds, and are they this very append?
    select jsonb_object_agg(r.request, jsonb_build_object(
               'count', r.count, 'stream', r.stream, 'in_row', r.in_row,
               'position', r.position, 'revision', r.revision, 'epoch', r.epoch))
      into v_known
      from (select i.request, count(*) as count, min(e.stream) as stream,
                   min(e.stream) = max(e.stream)
                       and min(e.revision - i.ord) = max(e.revision - i.ord)
                       and min(e.position - i.ord) = max(e.position - i.ord) as in_row,
                   min(e.position) as position, min(e.revision) as revision, min(e.epoch) as epoch
              from unnest(p_id, p_request) with ordinality as i (id, request, ord),
                   lateral (select * from chain.event where id = i.id limit 1) e
             group by i.request) r;

    for i in 1 .. cardinality(p_stream) loop
        s := p_stream[i];
        k := v_known -> i::text;
        if k is null then
            if p_expected[i] = -2 or p_expected[i] = v_last[s] then
                v_outcome[i]  := 'appended';
                v_position[i] := v_tip + 1;
                v_shift[i]    := v_tip - v_events;
                v_start[i]    := v_last[s] - v_events;
                v_tip         := v_tip + p_count[i];
                v_last[s]     := v_last[s] + p_count[i];
            end if;
            v_revision[i] := v_last[s];
        elsif (k ->> 'count')::int = p_count[i]
          and (k ->> 'in_row')::boolean
          and k ->> 'stream' = p_streams[s]
          and (p_expected[i] = -2 or p_expected[i] = (k ->> 'revision')::bigint - 1)
        then
            v_outcome[i]  := 'repeated';
            v_position[i] := (k ->> 'position')::bigint;
            v_revision[i] := (k ->> 'revision')::bigint + p_count[i] - 1;
            v_epoch[i]    := (k ->> 'epoch')::bigint;
        else
            v_revision[i] := v_last[s];
        end if;
        v_events := v_events + p_count[i];
    end loop;

    if v_tip > n.tip_position then
        insert into chain.event (position, epoch, stream, revision, id, type, data, metadata, recorded_at)
        select v_shift[e.request] + e.ord, n.epoch, p_streams[p_stream[e.request]], v_start[e.request] + e.ord,
               e.id, e.type, e.data, e.metadata, v_now
          from unnest(p_request, p_id, p_type, p_data, p_metadata)
               with ordinality as e (request, id, type, data, metadata, ord)
         where v_shift[e.request] is not null;

        update chain.node set tip_position = v_tip, tip_epoch = n.epoch, clock = v_now,
                              seen = greatest(n.seen, clock_timestamp());
        perform pg_notify('chain_log', v_tip::text);
    end if;

    perform chain.leased(n);  -- still, after whatever it waited for
    return query
        select a.ord::int, a.outcome, a.position, a.revision, a.epoch, v_left
          from unnest(v_outcome, v_position, v_revision, v_epoch)
               with ordinality as a (outcome, position, revision, epoch, ord)
         order by a.ord;
end
$$;
