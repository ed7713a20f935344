-- In the registry: renews a chain's lease, if it is `p_holder`'s in `p_epoch`. Answers no row if it is not.
create or replace function chain.renew_lease(p_chain text, p_epoch bigint, p_holder text, p_duration_ms bigint)
returns setof chain.lease
language sql
as $$
    select chain.durable();

    update chain.lease
       set renewals = renewals + 1, duration_ms = p_duration_ms
     where chain = p_chain and epoch = p_epoch and holder = p_holder
    returning *
$$;
