-- Appends one or more events to one stream: the call for programs in any language.
--
-- `p_expected` is the stream's last revision, -1 for a stream that has no events yet, -2 for any. The same
-- ids again give the first answer. Raises GC001 (with the stream's last revision as `current`) on a conflict,
-- GC002 to GC005 if this node takes no writes, GC006 if an event breaks a rule.
create or replace function chain.append(
    p_stream   text,
    p_expected bigint,
    p_id       uuid[],
    p_type     text[],
    p_data     bytea[],
    p_metadata bytea[]
)
returns table (first_position bigint, last_revision bigint, in_epoch bigint, repeated boolean)
language plpgsql
as $$
declare
    v_count int := cardinality(p_id);
    r       record;
begin
    perform chain.check_append(p_stream, p_id, p_type, p_data, p_metadata);

    select * into r
      from chain.append_group(array[p_stream], array[1], array[p_expected], array[v_count],
                              array_fill(1, array[v_count]), p_id, p_type, p_data, p_metadata);
    if r.r_outcome[1] = 'conflict' then
        perform chain.settle();  -- it tells of others' events, which a crash must not take back
        perform chain.fail('GC001',
            format('stream %s is at revision %s, not at %s as expected, or holds some of these events already',
                   p_stream, r.r_revision[1], p_expected),
            jsonb_build_object('current', r.r_revision[1]));
    end if;
    if r.r_tip is not null then
        perform pg_notify('chain_log', r.r_tip::text);
    end if;
    return query select r.r_position[1], r.r_revision[1], r.r_epoch[1], r.r_outcome[1] = 'repeated';
end
$$;
