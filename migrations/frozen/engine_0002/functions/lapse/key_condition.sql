-- lapse.key_condition: which row has this key, in SQL.
--
-- In: a table, the columns of a key, and the alias of the row. Out: a condition over $1, an array with the text of each
-- column's value. Values are cast, so that an index serves and any spelling will do; without the column's own length or
-- precision, so that a value which does not fit is no other one's.

create or replace function lapse.key_condition(p_table regclass, p_columns text[], p_alias text)
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format('%s.%I %s $1[%s]::%s', p_alias, c.name, lapse.equality(a.atttypid), c.place,
                             format_type(a.atttypid, -1)), ' and ' order by c.place)
      from unnest(p_columns) with ordinality as c (name, place)
      join pg_attribute as a on a.attrelid = p_table and a.attname = c.name and not a.attisdropped
$$;

comment on function lapse.key_condition(regclass, text[], text) is
    'Internal: SQL that finds a row by the texts of its key.';
