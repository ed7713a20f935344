-- One look for who measures how late a node is: its tip, its clock, and when the first event behind `p_after` was
-- recorded, by the clock of the head that took it; null if this node does not have that event.
create or replace function chain.glance(p_after bigint)
returns table (tip_position bigint, tip_epoch bigint, clock timestamptz, next_recorded_at timestamptz)
language sql
volatile
as $$
    select n.tip_position, n.tip_epoch, clock_timestamp(),
           (select e.recorded_at from chain.event e where e.position = p_after + 1)
      from chain.node n
$$;
