-- lapse.expiry_due: writes the function by which the engine learns what of a declared policy is due.
--
-- In: the policy, the SET list of an update or the function of a call, and the types of the key columns. Out: the
-- CREATE FUNCTION statement. The function runs with the rights of the table's owner, so that no predicate, cast or
-- index expression of theirs ever runs with those of the engine, and the engine needs no right on the table. It
-- executes its own statements and nothing that it is given:
--   look  the rows that are due, oldest first: keys as text and due times
--   lock  the same, locked; others' locks are skipped
--   plan  how the server would do lock, for any relation below the table if one is given, under the settings given: two rows,
--         whose keys are the plan as JSON and as text
--   size  how many rows the table has, counted to the limit: one row, whose key is the number
--   act   a plan like that of plan, for the statement that the step ends with

create or replace function lapse.expiry_due(p_policy lapse.policy, p_what text, p_types text[])
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select format('create or replace function %s(p_what text, p_after timestamptz, p_cutoff timestamptz, p_limit integer, '
                  'p_relation regclass default null, p_settings text[] default null)'
                  || chr(10) || '    returns setof lapse.due_row' || chr(10), lapse.due_function(p_policy))
           || lapse.expiry_settings()
           || format('as %L', concat(
               chr(10),
               translate(format('-- %s: what of %s is due by policy %s.', lapse.due_function(p_policy), p_policy.target_table,
                                p_policy.name), chr(10) || chr(13), '  ') || chr(10),
               '--' || chr(10),
               '-- Made by lapse.create_expiry, whose next call makes it anew: don''t edit. The engine looks at rows through it, and' || chr(10),
               '-- so needs no right on the table: it runs with those of the table''s owner. See lapse.expiry_due.' || chr(10),
               'declare' || chr(10),
               format('    c_head constant text := %L;' || chr(10), left(s.statement, s.place - 1)),
               format('    c_tail constant text := %L;' || chr(10), substr(s.statement, s.place + length(s.target))),
               format('    c_act  constant text := %L;' || chr(10), lapse.expiry_act(p_policy, p_what, s.arrays, s.until, '')),
               'begin' || chr(10),
               '    if p_what in (''look'', ''lock'') then' || chr(10),
               format('        return query execute c_head || %L || c_tail || case when p_what = ''lock'' then '' for update of t skip locked'' else '''' end' || chr(10), s.target),
               '               using p_after, p_cutoff, p_limit;' || chr(10),
               '    elsif p_what = ''size'' then' || chr(10),
               format('        return query select count(*)::text, null::timestamptz from (select from %s limit $4) as t;' || chr(10), s.target),
               '    elsif p_what = ''plan'' then' || chr(10),
               '        return query' || chr(10),
               '        select u.line, null::timestamptz' || chr(10),
               format('          from lapse.explained(c_head || coalesce(p_relation::text, %L) || c_tail || '' for update of t skip locked'',' || chr(10), s.target),
               '                               ''timestamp with time zone, timestamp with time zone, integer'',' || chr(10),
               '                               ''''''-infinity'''', ''''infinity'''', 1000'', p_settings) as e' || chr(10),
               '         cross join unnest(array[e.plan::text, e.lines]) as u (line);' || chr(10),
               '    else' || chr(10),
               '        return query' || chr(10),
               '        select u.line, null::timestamptz' || chr(10),
               format('          from lapse.explained(c_act, %L, %L, p_settings) as e' || chr(10), s.arguments, s.nulls),
               '         cross join unnest(array[e.plan::text, e.lines]) as u (line);' || chr(10),
               '    end if;' || chr(10),
               'end;' || chr(10)))
      from (select q.target, q.statement, strpos(q.statement, ' from ' || q.target || ' as t ') + 6 as place, a.*
              from (select lapse.quoted_name(p_policy.target_table) as target, lapse.due_statement(p_policy) as statement) as q
             cross join lateral (
                   select array_agg('$' || t.place order by t.place) as arrays,
                          '$' || count(*) + 1 as until,
                          string_agg(t.type || '[]', ', ' order by t.place) || ', '
                          || case when p_policy.due_zone is null then 'timestamp with time zone'
                                  else 'timestamp without time zone' end as arguments,
                          repeat('null, ', count(*)::integer) || 'null' as nulls
                     from unnest(p_types) with ordinality as t (type, place)) as a) as s
$$;

comment on function lapse.expiry_due(lapse.policy, text, text[]) is
    'Internal: the CREATE FUNCTION statement of the function that names a declared policy''s due rows.';
