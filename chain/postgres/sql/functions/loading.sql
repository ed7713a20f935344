-- Is this node being loaded, without the constraints that `begin_load` took away?
create or replace function chain.loading()
returns boolean
language sql
stable
as $$
    select count(*) < 2
      from pg_constraint
     where conrelid = 'chain.event'::regclass and conname in ('event_stream', 'event_id')
$$;
