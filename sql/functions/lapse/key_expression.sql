-- lapse.key_expression: how a row's key is spelled as text, in SQL.
--
-- In: the key's columns in order, and the alias of the row. Out: an expression: the column's text, or of several
-- columns an array's text. It is what lapse.due_query gives and what lapse.blocked_row keeps, given the same settings
-- of time zone, dates, intervals, bytea and floats.

create or replace function lapse.key_expression(p_columns text[], p_alias text)
    returns text
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
    select case when count(*) = 1
                then max(format('%s.%I::text', p_alias, c.name))
                else format('array[%s]::text', string_agg(format('%s.%I::text', p_alias, c.name), ', ' order by c.place))
           end
      from unnest(p_columns) with ordinality as c (name, place)
$$;

comment on function lapse.key_expression(text[], text) is
    'Internal: SQL that spells a row''s key as text, as lapse.due_query does.';
