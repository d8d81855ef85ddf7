-- lapse.due_query: the query that says which rows of a policy are due.
--
-- In: a policy. Out: SQL with three parameters, $1 from (inclusive), $2 cutoff
-- (inclusive) and $3 limit, giving (key text, due timestamptz), oldest first;
-- NULL for a policy without a target. Rows set aside and not yet due for a retry
-- are left out. The engine previews and counts with it; a policy's step is expected to
-- take the same rows. To lock them there is lapse.due_rows.
--
-- A declared policy's rows are named by a function that lapse.create_expiry made and that runs
-- with the rights of the table's owner: nothing of what an author wrote, and no function that hides behind
-- a type or an index of his table, is ever run with the rights of the engine. What it does is lapse.due_statement.

create or replace function lapse.due_query(p_policy lapse.policy)
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select case
               when (p_policy).action is null then lapse.due_statement(p_policy)
               else format('select t.key, t.due from %s(''look''::text, $1::timestamptz, $2::timestamptz, $3::integer, '
                           'null::regclass, null::text[]) as t', lapse.checked_due_function(p_policy))
           end
$$;

comment on function lapse.due_query(lapse.policy) is
    'SQL for the due rows of a policy: $1 from, $2 cutoff, $3 limit; NULL for a policy without a target.';
