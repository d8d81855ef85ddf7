-- lapse.due_plan: the plan of the statement that names and locks a policy's due rows.
--
-- In: a policy, and settings to plan under. Out: the generic plan, as JSON and for people. Raises what
-- lapse.explained raises. The times stand wide open, so that no partition is left out of the plan.

create or replace function lapse.due_plan(
    p_policy   lapse.policy,
    p_settings text[],
    out plan   jsonb,
    out lines  text
)
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    select e.plan, e.lines
      from lapse.explained(lapse.due_query(p_policy) || ' for update of t skip locked',
                           'timestamp with time zone, timestamp with time zone, integer',
                           '''-infinity'', ''infinity'', 1000',
                           p_settings) as e
$$;

comment on function lapse.due_plan(lapse.policy, text[]) is
    'Internal: the generic plan of the statement that names and locks a policy''s due rows.';
