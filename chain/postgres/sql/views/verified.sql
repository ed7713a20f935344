-- How far this node's log is verified without a hole, and when the part was last read that was read longest ago.
create or replace view chain.verified as
select coalesce(max(last), 0) as position, min(checked_at) as oldest_check, clock_timestamp() as clock
  from (select last, checked_at, number, row_number() over (order by number) as nth from chain.segment) as s
 where number = nth;
