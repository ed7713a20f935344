-- The digest of a range of the log: SHA-256 over the SHA-256 of each event in order of position, where an
-- event is hashed as all its columns, the numbers in 8 bytes big-endian, the time as microseconds since
-- 2000-01-01 UTC, and before each text and bytes column its length. Anyone can compute it again from the rows.
create or replace function chain.digest(p_first bigint, p_last bigint)
returns table (count bigint, value bytea)
language sql
stable
parallel safe
as $$
    select count(*),
           sha256(coalesce(string_agg(sha256(
               int8send(position) || int8send(epoch) || int8send(revision) || uuid_send(id)
               || timestamptz_send(recorded_at)
               || int8send(octet_length(stream))   || convert_to(stream, 'UTF8')
               || int8send(octet_length(type))     || convert_to(type, 'UTF8')
               || int8send(octet_length(data))     || data
               || int8send(octet_length(metadata)) || metadata
           ), ''::bytea order by position), ''))
      from chain.event
     where position between p_first and p_last
$$;
