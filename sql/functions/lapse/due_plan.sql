-- lapse.due_plan: the plan of the statement that names and locks a policy's due rows.
--
-- In: a policy, the relation to look at (its target, or one below it), and settings to plan under. Out: the
-- generic plan, as JSON and for people. Raises what lapse.explained raises. The times stand wide open, so that no
-- partition is left out of the plan. To plan is to run some of what stands in a statement, and in the indexes of its
-- table; so a declared policy's is planned by its own function, with the rights of the table's owner.

create or replace function lapse.due_plan(
    p_policy   lapse.policy,
    p_relation regclass,
    p_settings text[],
    out plan   jsonb,
    out lines  text
)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_policy lapse.policy := p_policy;
    v_both   text[];
begin
    if p_policy.action is not null then
        execute format('select array(select t.key from %s(''plan''::text, null::timestamptz, null::timestamptz, null::integer, '
                       '$1, $2) as t)', lapse.checked_due_function(p_policy))
           into v_both
          using p_relation, p_settings;
        plan := v_both[1];
        lines := v_both[2];
        return;
    end if;

    select format('%I.%I', n.nspname, c.relname)
      into v_policy.target_table
      from pg_class as c
      join pg_namespace as n on n.oid = c.relnamespace
     where c.oid = p_relation;
    select e.plan, e.lines
      into plan, lines
      from lapse.explained(lapse.due_statement(v_policy) || ' for update of t skip locked',
                           'timestamp with time zone, timestamp with time zone, integer',
                           '''-infinity'', ''infinity'', 1000',
                           p_settings) as e;
end;
$$;

comment on function lapse.due_plan(lapse.policy, regclass, text[]) is
    'Internal: the generic plan of the statement that names and locks a policy''s due rows in a relation.';
