-- lapse.due_query: the query that says which rows of a policy are due.
--
-- In: a policy. Out: SQL with three parameters, $1 from (inclusive), $2 cutoff
-- (inclusive) and $3 limit, giving (key text, due timestamptz), oldest first;
-- NULL for a policy without a target. Rows set aside and not yet due for a retry
-- are left out. The engine previews and counts with it, and locks with it (the
-- caller appends for update of t skip locked); a policy's step is expected to
-- take the same rows. The predicate stands in the text with its literals, so
-- that a partial index applies; the line break after it ends any comment in it.

create or replace function lapse.due_query(p_policy lapse.policy)
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select format(
               'select %s as key, t.%I as due from %s as t '
               'where (%s' || chr(10) || ') and t.%I >= $1 and t.%I <= $2 '
               'and not exists (select from lapse.blocked_row as b '
               'where b.policy = %L and b.key = %s and b.retry_at > $2) '
               'order by t.%I, %s limit $3',
               k.key, (p_policy).due_column, lapse.quoted_name((p_policy).target_table),
               coalesce((p_policy).predicate, 'true'), (p_policy).due_column, (p_policy).due_column,
               (p_policy).name, k.key,
               (p_policy).due_column, k.sorted)
      from (select case when count(*) = 1
                        then max(format('t.%I::text', c.name))
                        else format('array[%s]::text', string_agg(format('t.%I::text', c.name), ', ' order by c.place))
                   end as key,
                   string_agg(format('t.%I', c.name), ', ' order by c.place) as sorted
              from unnest((p_policy).key_columns) with ordinality as c (name, place)) as k
     where (p_policy).target_table is not null
$$;

comment on function lapse.due_query(lapse.policy) is
    'SQL for the due rows of a policy: $1 from, $2 cutoff, $3 limit; NULL for a policy without a target.';
