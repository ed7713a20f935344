-- Has the clock stepped back, by more than the tolerance, behind a reading of it? Then no deadline is worth
-- anything. The tolerance is `CLOCK_TOLERANCE_S` of chain/lease.py.
create or replace function chain.clock_is_back(p_seen timestamptz)
returns boolean
language sql
volatile
as $$
    select clock_timestamp() < p_seen - interval '200 milliseconds'
$$;
