-- The digest of a range of the log: SHA-512 over its events in order of position, each encoded as position, epoch,
-- revision (8 bytes each, big-endian), id (16 bytes), recorded_at (8 bytes, microseconds since 2000-01-01 UTC), and
-- of stream, type, data and metadata, in UTF-8, the length (4 bytes) and then the bytes, or, if they are more than
-- 1,024, their own SHA-512 (so that a range of large events needs little memory). Anyone can compute it again.
create or replace function chain.digest(p_first bigint, p_last bigint)
returns table (count bigint, value bytea)
language sql
stable
parallel safe
as $$
    select count(*),
           sha512(coalesce(string_agg(
               int8send(position) || int8send(epoch) || int8send(revision) || uuid_send(id)
               || timestamptz_send(recorded_at)
               || int4send(octet_length(stream))   || convert_to(stream, 'UTF8')
               || int4send(octet_length(type))     || convert_to(type, 'UTF8')
               || int4send(octet_length(data))
               || case when octet_length(data) > 1024 then sha512(data) else data end
               || int4send(octet_length(metadata))
               || case when octet_length(metadata) > 1024 then sha512(metadata) else metadata end,
               ''::bytea order by position), ''))
      from chain.event
     where position between p_first and p_last
$$;
