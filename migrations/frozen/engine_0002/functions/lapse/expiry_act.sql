-- lapse.expiry_act: what a declared policy does with the rows that it has picked and locked.
--
-- In: the policy, the SET list of an update or the function of a call, and how the arrays of keys and the latest
-- value of the due column that is due are written (variables in the step, parameters in a proof), and an INTO clause.
-- Out: one statement that gives how many of the rows are done with: are gone, or not due any more. Rows are found by
-- key alone: they are locked and so stay as they were found. An update that leaves a row due counts as nothing done, so that the
-- engine sets the row aside instead of updating it for ever; the same holds for a function that leaves it due.

create or replace function lapse.expiry_act(
    p_policy lapse.policy,
    p_what   text,
    p_keys   text[],
    p_until  text,
    p_into   text
)
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select case (p_policy).action
               when 'delete' then format(
                   'with gone as (' || chr(10)
                   || '            delete from %s as t' || chr(10)
                   || '             using unnest(%s) as d (%s)' || chr(10)
                   || '             where %s' || chr(10)
                   || '            returning 1' || chr(10)
                   || '        )' || chr(10)
                   || '        select count(*)%s from gone',
                   n.target, k.arrays, k.names, k.joined, p_into)
               when 'update' then format(
                   'with changed as (' || chr(10)
                   || '            update %s as t' || chr(10)
                   || '               set %s' || chr(10)
                   || '              from unnest(%s) as d (%s)' || chr(10)
                   || '             where %s' || chr(10)
                   || '            returning (%s) is true as lapse_still_due' || chr(10)
                   || '        )' || chr(10)
                   || '        select count(*) filter (where not c.lapse_still_due)%s from changed as c',
                   n.target, p_what, k.arrays, k.names, k.joined, n.due, p_into)
               else format(
                   'select count(*)%s' || chr(10)
                   || '          from unnest(%s) as d (%s)' || chr(10)
                   || '         where not exists (select from %s as t' || chr(10)
                   || '                            where %s' || chr(10)
                   || '                              and %s)',
                   p_into, k.arrays, k.names, n.target, k.joined, n.due)
           end
      from (select lapse.quoted_name((p_policy).target_table) as target,
                   format('(%s' || chr(10) || '            ) and t.%I <= %s',
                          coalesce((p_policy).predicate, 'true'), (p_policy).due_column, p_until) as due) as n
     cross join lateral (
           select string_agg(v.value, ', ' order by c.place) as arrays,
                  string_agg(format('lapse_key_%s', c.place), ', ' order by c.place) as names,
                  string_agg(format('t.%I %s d.lapse_key_%s', c.name, lapse.equality(a.atttypid), c.place), ' and '
                             order by c.place) as joined
             from unnest((p_policy).key_columns) with ordinality as c (name, place)
             join pg_attribute as a on a.attrelid = n.target::regclass and a.attname = c.name
             join unnest(p_keys) with ordinality as v (value, place) on v.place = c.place) as k
$$;

comment on function lapse.expiry_act(lapse.policy, text, text[], text, text) is
    'Internal: the statement that a declared policy''s step ends with, giving how many rows are done with.';
