-- Makes this transaction's commit wait for the disk, whatever the session, role or database says: what the
-- node has acknowledged or promised must outlive a crash.
create or replace function chain.durable()
returns void
language plpgsql
as $$
begin
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end
$$;
