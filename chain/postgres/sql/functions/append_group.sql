-- Appends many requests in one transaction; one request's conflict fails that request alone.
--
-- Requests are told apart by number, 1 to n. Per distinct stream: its name. Per request: which stream, what
-- revision it expects (-1 none yet, -2 any) and its count of events. Per event, in the order of the requests:
-- its request, id, type, data, metadata. Event ids are distinct within a call.
--
-- Says nothing to listeners: that is for `append` and `append_and_flush`, through which programs append.
--
-- Answers arrays with an element a request: outcome `appended`, `repeated` (the same ids were appended before, at the
-- same place: here is the first answer) or `conflict`, with the stream's last revision as it is afterwards; and how
-- many seconds were left of the lease, null without one. An answer that took longer than that proves nothing: the
-- caller must not count it as an acknowledgement. `r_tip` is the new tip, null if nothing was appended.
create or replace function chain.append_group(
    p_streams          text[],
    p_stream           int[],
    p_expected         bigint[],
    p_count            int[],
    p_request          int[],
    p_id               uuid[],
    p_type             text[],
    p_data             bytea[],
    p_metadata         bytea[],
    out r_outcome      text[],
    out r_position     bigint[],
    out r_revision     bigint[],
    out r_epoch        bigint[],
    out r_lease_left   double precision,
    out r_tip          bigint
)
language plpgsql
set enable_seqscan = off  -- a plan that was made when the log was short must not scan a long log
set plan_cache_mode = force_generic_plan  -- and is kept: for few events planning took longer than the rest
as $$
declare
    n        chain.node;
    v_alive  boolean;
    v_now    timestamptz;
    v_from   bigint[] := array_fill(0, array[cardinality(p_streams)])::bigint[];
                                                          -- per stream: no sooner ends what is looked for
    v_last   bigint[];                                    -- per stream: last revision, as we go
    v_seen   boolean;                                     -- does the log hold any of these ids?
    v_known  jsonb;                                       -- per request with known ids: what is known
    v_none   bigint[] := array_fill(null::bigint, array[cardinality(p_stream)]);
    v_shift  bigint[] := v_none;                          -- per request: position less event number
    v_start  bigint[] := v_none;                          -- per request: revision less event number
    v_tip    bigint;
    v_events bigint   := 0;
    s        int;
    k        jsonb;
begin
    r_position := v_none;
    r_revision := v_none;
    r_outcome  := array_fill('conflict'::text, array[cardinality(p_stream)]);
    if current_setting('synchronous_commit') = 'off' then
        perform chain.durable();
    end if;

    -- A stream that ends where it is expected to is found by one row of the index; without this bound all its rows
    -- on that page would be looked at.
    for i in reverse cardinality(p_stream) .. 1 loop
        v_from[p_stream[i]] := greatest(p_expected[i], 0);
    end loop;

    -- Appends queue here, first come, first served: a queue for a row that each of them changes wakes all of it at
    -- every change. A fence or a renewal need not queue at all. From here on all others wait, so there are as few
    -- statements as can be: what `head` and `leased` look at is looked at together, and they judge in case of doubt.
    lock table chain.queue in share update exclusive mode;
    select h.* into n from chain.node h for no key update;
    v_now := clock_timestamp();
    select array(select coalesce((select e.revision from chain.event e
                                   where e.stream = u.stream and e.revision >= u.at_least
                                   order by e.revision desc limit 1),
                                 (select e.revision from chain.event e
                                   where e.stream = u.stream and u.at_least > 0
                                   order by e.revision desc limit 1), -1)
                   from unnest(p_streams, v_from) with ordinality as u (stream, at_least, ord)
                  order by u.ord),
           exists (select from unnest(p_id) i (id) where exists (select from chain.event e where e.id = i.id)),
           exists (select from chain.alive where reign = n.reign and started = pg_postmaster_start_time())
      into v_last, v_seen, v_alive;
    if n.role <> 'head' or n.reign < n.epoch or not v_alive or v_now < n.seen or v_now >= n.lease_until then
        n := chain.head();
        perform chain.leased(n);
    end if;

    r_lease_left := case when n.lease_until <> 'infinity' then extract(epoch from n.lease_until - v_now) end;
    r_epoch      := array_fill(n.epoch, array[cardinality(p_stream)]);
    v_now        := greatest(v_now, n.clock);
    v_tip        := n.tip_position;
    if v_seen then
        v_known := chain.known(p_id, p_request);
    end if;

    for i in 1 .. cardinality(p_stream) loop
        s := p_stream[i];
        k := v_known -> i::text;
        if k is null then
            if p_expected[i] = -2 or p_expected[i] = v_last[s] then
                r_outcome[i]  := 'appended';
                r_position[i] := v_tip + 1;
                v_shift[i]    := v_tip - v_events;
                v_start[i]    := v_last[s] - v_events;
                v_tip         := v_tip + p_count[i];
                v_last[s]     := v_last[s] + p_count[i];
            end if;
            r_revision[i] := v_last[s];
        elsif (k ->> 'count')::int = p_count[i]
          and (k ->> 'in_row')::boolean
          and k ->> 'stream' = p_streams[s]
          and (p_expected[i] = -2 or p_expected[i] = (k ->> 'revision')::bigint - 1)
        then
            r_outcome[i]  := 'repeated';
            r_position[i] := (k ->> 'position')::bigint;
            r_revision[i] := (k ->> 'revision')::bigint + p_count[i] - 1;
            r_epoch[i]    := (k ->> 'epoch')::bigint;
        else
            r_revision[i] := v_last[s];
        end if;
        v_events := v_events + p_count[i];
    end loop;

    if v_tip > n.tip_position then
        with written as (
            insert into chain.event (position, epoch, stream, revision, id, type, data, metadata, recorded_at)
            select v_shift[e.request] + e.ord, n.epoch, p_streams[p_stream[e.request]], v_start[e.request] + e.ord,
                   e.id, e.type, e.data, e.metadata, v_now
              from unnest(p_request, p_id, p_type, p_data, p_metadata)
                   with ordinality as e (request, id, type, data, metadata, ord)
             where v_shift[e.request] is not null
        )
        update chain.node set tip_position = v_tip, tip_epoch = n.epoch, clock = v_now,
                              seen = greatest(n.seen, clock_timestamp());
        r_tip := v_tip;
    end if;
    if clock_timestamp() >= n.lease_until then  -- after whatever it waited for
        perform chain.leased(n);
    end if;
end
$$;
