-- Raises one of our own SQLSTATEs, class GC. `detail` is JSON for programs, `hint` is for people.
--   GC001 wrong revision   GC002 not head      GC003 fenced    GC004 lease expired   GC005 restarted
--   GC006 bad event        GC007 stale link    GC008 corrupt   GC009 wrong identity  GC010 promised
create or replace function chain.fail(p_state text, p_message text, p_detail jsonb default '{}', p_hint text default '')
returns void
language plpgsql
as $$
begin
    raise exception using errcode = p_state, message = p_message, detail = p_detail::text, hint = p_hint;
end
$$;
