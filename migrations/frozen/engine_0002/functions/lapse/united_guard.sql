-- lapse.united_guard: the guard of a file that was asked for several times.
--
-- In: guards as lapse.file_guard makes them, oldest first. Out: all their alternatives, since each
-- request condemned the file as it then was; NULL, no guard, when one of them is NULL, since
-- that request wanted the file gone whatever it is. Of more than 32 the newest are kept:
-- what the file was before 32 other states it is not any more.

create or replace function lapse.united_guard(p_guards jsonb[])
    returns jsonb
    language sql
    immutable
    parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select case when array_position(p_guards, null) is null then jsonb_agg(u.alternative order by u.newest) end
      from (select n.alternative, max(n.position) as newest
              from (select e.alternative, row_number() over (order by g.position, e.position) as position
                      from unnest(p_guards) with ordinality as g (guard, position)
                     cross join lateral jsonb_array_elements(g.guard) with ordinality as e (alternative, position)) as n
             group by n.alternative
             order by newest desc
             limit 32) as u
$$;

comment on function lapse.united_guard(jsonb[]) is
    'Internal: the alternatives of all guards together; NULL when one of them is NULL.';
