-- Ends this head's time to write in its reign, unless it was made longer than `p_until` since. Answers whether any
-- was left: then this server's clock is behind where its daemon, by its monotonic clock, knows it should be.
create or replace function chain.lapse(p_reign bigint, p_until timestamptz)
returns boolean
language plpgsql
as $$
declare
    n chain.node;
begin
    perform chain.durable();
    select * into n from chain.node for no key update;

    if n.role <> 'head' or n.reign <> p_reign or n.lease_until > p_until then
        return false;
    end if;
    update chain.node set lease_until = '-infinity', seen = greatest(n.seen, clock_timestamp());
    return n.lease_until > clock_timestamp();
end
$$;
