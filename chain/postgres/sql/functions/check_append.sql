-- Holds one append against the rules of the log; raises GC006 if it breaks one.
create or replace function chain.check_append(
    p_stream   text,
    p_id       uuid[],
    p_type     text[],
    p_data     bytea[],
    p_metadata bytea[]
)
returns void
language plpgsql
immutable
as $$
declare
    v_count int := coalesce(cardinality(p_id), 0);
begin
    if p_stream is null or octet_length(p_stream) not between 1 and 512 then
        perform chain.fail('GC006', 'a stream name has 1 to 512 bytes');
    elsif p_stream like '$%' then
        perform chain.fail('GC006', 'stream names that begin with $ are kept for geochain');
    elsif v_count not between 1 and 4096 then
        perform chain.fail('GC006', 'an append has 1 to 4096 events');
    elsif cardinality(p_type) <> v_count or cardinality(p_data) <> v_count
       or cardinality(p_metadata) <> v_count then
        perform chain.fail('GC006', 'ids, types, data and metadata are not equally many');
    elsif exists (select from unnest(p_id, p_type, p_data, p_metadata) as e (id, type, data, metadata)
                   where e.id is null or e.type is null or e.data is null or e.metadata is null
                      or octet_length(e.type) not between 1 and 512
                      or octet_length(e.data) + octet_length(e.metadata) > 16777216) then
        perform chain.fail('GC006',
            'an event has an id, a type of 1 to 512 bytes, and at most 16 MiB of data and metadata');
    elsif (select count(distinct i) from unnest(p_id) i) < v_count then
        perform chain.fail('GC006', 'an event id appears twice in one append');
    end if;
end
$$;
