-- lapse.due_statement: the statement over a policy's own table that says which rows are due.
--
-- In: a policy. Out: SQL with three parameters, $1 from (inclusive), $2 cutoff
-- (inclusive) and $3 limit, giving (key text, due timestamptz), oldest first;
-- NULL for a policy without a target. Rows set aside and not yet due for a retry
-- are left out. To lock rows with it, append for update of t skip locked. The predicate stands
-- in the text with its literals, so that a partial index applies; the line break after it
-- ends any comment in it. An age or a zone is put on the side of the parameters, so that a plain index
-- on the column serves: see lapse.due_shift.
--
-- It runs with the rights of whoever executes it, predicate, casts and all. For policies of
-- somebody else's tables that would be lending the engine's rights to a predicate: lapse.due_query and
-- lapse.due_rows have those executed by their owner.

create or replace function lapse.due_statement(p_policy lapse.policy)
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
    set intervalstyle = 'postgres'
as $$
    select format(
               'select %s as key, %s as due from %s as t '
               'where (%s' || chr(10) || ') and t.%I >= %s and t.%I <= %s '
               'and %s '
               'order by t.%I, %s limit $3',
               k.key, w.due, lapse.quoted_name((p_policy).target_table),
               coalesce((p_policy).predicate, 'true'), (p_policy).due_column, w.since, (p_policy).due_column, w.until,
               case
                   when (p_policy).action is null
                   then format('not exists (select from lapse.blocked_row as b '
                               'where b.policy = %L and b.key = %s and b.retry_at > $2)', (p_policy).name, k.key)
                   else format('%s not in (select lapse.blocked_keys(%L, $2))', k.key, (p_policy).name)
               end,
               (p_policy).due_column, k.sorted)
      from (select case when count(*) = 1
                        then max(format('t.%I::text', c.name))
                        else format('array[%s]::text', string_agg(format('t.%I::text', c.name), ', ' order by c.place))
                   end as key,
                   string_agg(format('t.%I', c.name), ', ' order by c.place) as sorted
              from unnest((p_policy).key_columns) with ordinality as c (name, place)) as k
     cross join lateral (
           select format('lapse.due_shift($2, %L, %L)', (p_policy).older_than, (p_policy).due_zone) as shift) as s
     cross join lateral (
           select format('t.%I', (p_policy).due_column), '$1', '$2'
            where num_nonnulls((p_policy).older_than, (p_policy).due_zone) = 0
            union all
           select format('timezone(''UTC'', timezone(''UTC'', t.%I) + %s)', (p_policy).due_column, s.shift),
                  format('timezone(''UTC'', timezone(''UTC'', $1) - %s)', s.shift),
                  format('timezone(''UTC'', timezone(''UTC'', $2) - %s)', s.shift)
            where (p_policy).older_than is not null and (p_policy).due_zone is null
            union all
           select format('timezone(''UTC'', t.%I + %s)', (p_policy).due_column, s.shift),
                  format('timezone(''UTC'', $1) - %s', s.shift),
                  format('timezone(''UTC'', $2) - %s', s.shift)
            where (p_policy).due_zone is not null) as w (due, since, until)
     where (p_policy).target_table is not null
$$;

comment on function lapse.due_statement(lapse.policy) is
    'SQL over a policy''s table for its due rows: $1 from, $2 cutoff, $3 limit; runs with the rights of who executes it.';
