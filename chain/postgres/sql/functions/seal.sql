-- Computes the digest of a segment up to `p_last` from this node's own rows, and notes it in chain.segment:
-- if it is noted already and the rows still give it, that they did; if it is not, and the digest is what a
-- neighbour has too (`p_agreed`), the digest. What is noted never changes but by growing, as long as its rows stand.
-- `intact` is false if rows no longer give what is noted: then nothing is noted. The lock keeps `give_up` out.
-- A role that may do nothing but read may be allowed to call this: all it can bring about is true. (That a neighbour
-- agreed is its word; a verifier that lies can have noted what the rows here give, and no more.)
create or replace function chain.seal(p_number bigint, p_last bigint, p_agreed bytea default null)
returns table (count bigint, value bytea, intact boolean)
language plpgsql
security definer
as $$
#variable_conflict use_column
declare
    v_first bigint := (p_number - 1) * 16384 + 1;
    v_new   record;
    v_old   bytea;
    s       chain.segment;
begin
    lock table chain.segment in row exclusive mode;
    select * into s from chain.segment g where g.number = p_number;
    select d.count, d.value into v_new from chain.digest(v_first, p_last) d;
    if s.last = p_last then
        v_old := v_new.value;
    elsif s.last is not null then
        select d.value into v_old from chain.digest(v_first, s.last) d;
    end if;

    if v_old <> s.value then
        return query select v_new.count, v_new.value, false;
    elsif s.last is not null and s.last >= p_last then
        update chain.segment g set checked_at = clock_timestamp()
         where (g.number, g.last, g.value) = (p_number, s.last, s.value);
        return query select v_new.count, v_new.value, true;
    else
        if v_new.count = p_last - v_first + 1 and v_new.value = p_agreed then
            insert into chain.segment as g (number, last, value) values (p_number, p_last, v_new.value)
                on conflict (number) do update
               set last = excluded.last, value = excluded.value,
                   sealed_at = excluded.sealed_at, checked_at = excluded.checked_at
             where g.last < excluded.last;
        end if;
        return query select v_new.count, v_new.value, true;
    end if;
end
$$;
