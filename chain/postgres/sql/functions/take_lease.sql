-- In the registry: gives a chain's lease to `p_holder` in `p_epoch`, if the record still is what was seen (nulls
-- for none) and of no newer epoch. Answers no row if it is not.
create or replace function chain.take_lease(
    p_chain         text,
    p_epoch         bigint,
    p_holder        text,
    p_duration_ms   bigint,
    p_seen_epoch    bigint,
    p_seen_holder   text,
    p_seen_renewals bigint
)
returns setof chain.lease
language plpgsql
as $$
begin
    perform chain.durable();
    if p_seen_epoch is null then
        return query
            insert into chain.lease values (p_chain, p_epoch, p_holder, 0, p_duration_ms)
                on conflict do nothing
            returning *;
    else
        -- The count goes on: a record never looks like one that somebody saw before.
        return query
            update chain.lease l
               set epoch = p_epoch, holder = p_holder, renewals = l.renewals + 1, duration_ms = p_duration_ms
             where l.chain = p_chain and l.epoch <= p_epoch
               and (l.epoch, l.holder, l.renewals) = (p_seen_epoch, p_seen_holder, p_seen_renewals)
            returning *;
    end if;
end
$$;
