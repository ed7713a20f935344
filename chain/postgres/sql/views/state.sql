-- This node's own word about itself.
create or replace view chain.state as
select chain, node, role, epoch, reign, promotion, upstream, tip_position, tip_epoch,
       clock_timestamp() as clock, role = 'head' and chain.restarted(reign) as restarted
  from chain.node;
