-- lapse.backlog: how much of a policy is due and not done yet.
--
-- In: the policy, how far to count, the time. Out: one row: the rows due,
-- counted up to p_cap; whether there are more; the oldest due time. All NULL
-- for a policy without a target, or one whose target is gone, unreadable or
-- being altered: a status that fails or hangs because of one policy would hide all
-- the others, so this never raises and hardly waits. A row due since -infinity is
-- counted and is not the oldest: it has no age. Counting stops at p_cap, since a
-- status must not scan millions.

create or replace function lapse.backlog(
    p_policy text,
    p_cap    integer     default 10000,
    p_now    timestamptz default now()
)
    returns table (rows bigint, capped boolean, oldest_due timestamptz)
    language plpgsql
    stable
    security definer  -- whoever may see the status needs no right on the target
    set search_path = pg_catalog, pg_temp
    set row_security = off
    set lock_timeout = '100 ms'
    set timezone = 'UTC'
    set datestyle = 'ISO'
    set intervalstyle = 'postgres'
    set bytea_output = 'hex'
    set extra_float_digits = 1
as $$
declare
    v_policy lapse.policy;
    v_cap    integer := least(greatest(coalesce(p_cap, 10000), 1), 1000000);
begin
    select p.* into v_policy from lapse.policy as p where p.name = p_policy;
    if v_policy.target_table is not null then
        execute 'select least(count(*), $4), count(*) > $4, min(q.due) filter (where isfinite(q.due)) from ('
                || lapse.due_query(v_policy) || ') as q'
           into rows, capped, oldest_due
          using '-infinity'::timestamptz, p_now, v_cap + 1, v_cap::bigint;
    end if;
    return next;
exception
    when others then
        rows := null;
        capped := null;
        oldest_due := null;
        return next;
end;
$$;

comment on function lapse.backlog(text, integer, timestamptz) is
    'Rows of a policy that are due, counted up to p_cap, and the oldest due time; NULLs where that can''t be told.';
