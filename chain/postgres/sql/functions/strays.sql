-- Positions of rows that are no part of the log: below 1, or beyond the tip. There are none, unless somebody wrote
-- behind the functions' back. One statement, so no append comes in between the tip and the rows.
create or replace function chain.strays(p_limit int)
returns table ("position" bigint)
language sql
stable
as $$
    select e.position
      from chain.event e
     where e.position < 1 or e.position > (select tip_position from chain.node)
     order by e.position
     limit p_limit
$$;
