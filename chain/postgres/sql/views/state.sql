-- This node's own word about itself. `lease_left` is in seconds, infinite without a lease.
create or replace view chain.state as
select chain, node, role, epoch, reign, promotion, upstream, tip_position, tip_epoch,
       clock_timestamp() as clock,
       role = 'head' and chain.restarted(reign)     as restarted,
       role = 'head' and chain.clock_is_back(seen)  as clock_is_back,
       case when isfinite(lease_until) then extract(epoch from lease_until - clock_timestamp())::double precision
            when lease_until > 'epoch' then double precision 'infinity'
            else double precision '-infinity' end   as lease_left,
       clock_timestamp() < promised                 as promised,
       chain.loading()                              as loading
  from chain.node;
