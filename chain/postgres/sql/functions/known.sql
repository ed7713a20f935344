-- What the log holds of the event ids of an append: a JSON object with a member for each request of which it holds any:
-- how many, whether they stand in a row as in the request, and where the first is. For retries.
create or replace function chain.known(p_id uuid[], p_request int[])
returns jsonb
language sql
stable
set enable_seqscan = off
as $$
    select jsonb_object_agg(r.request, jsonb_build_object(
               'count', r.count, 'stream', r.stream, 'in_row', r.in_row,
               'position', r.position, 'revision', r.revision, 'epoch', r.epoch))
      from (select i.request, count(*) as count, min(e.stream) as stream,
                   min(e.stream) = max(e.stream)
                       and min(e.revision - i.ord) = max(e.revision - i.ord)
                       and min(e.position - i.ord) = max(e.position - i.ord) as in_row,
                   min(e.position) as position, min(e.revision) as revision, min(e.epoch) as epoch
              from unnest(p_id, p_request) with ordinality as i (id, request, ord),
                   lateral (select * from chain.event where id = i.id limit 1) e
             group by i.request) r
$$;
