-- Has the server restarted, crashed or been restored since it was promoted to this reign?
create or replace function chain.restarted(p_reign bigint)
returns boolean
language sql
stable
as $$
    select not exists (
        select from chain.alive
         where reign = p_reign and started = pg_postmaster_start_time()
    )
$$;
