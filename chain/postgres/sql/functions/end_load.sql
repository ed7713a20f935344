-- Puts the constraints back that `begin_load` took away, on the unique indexes `event_stream` and `event_id`, which the
-- caller has made by then: each in a session of its own, at the same time.
create or replace function chain.end_load()
returns void
language plpgsql
as $$
begin
    if chain.loading() then
        alter table chain.event add constraint event_stream unique using index event_stream,
                                add constraint event_id     unique using index event_id;
    end if;
end
$$;
