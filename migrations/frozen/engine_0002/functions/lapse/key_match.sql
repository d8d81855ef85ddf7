-- lapse.key_match: do this row and this text have the same key, in SQL?
--
-- In: a table, the columns of its key, the alias of the row, and an expression for the key's text. Out: a condition, NULL where
-- the table has not all of these columns. The text is cast, so that an index serves; to the type below a domain, whose checks
-- could be anybody's code.

create or replace function lapse.key_match(p_relation oid, p_columns text[], p_alias text, p_key text)
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select string_agg(format('%s.%I %s %s::%s', p_alias, c.name, lapse.equality(a.atttypid),
                             case when cardinality(p_columns) = 1 then p_key
                                  else format('(%s::text[])[%s]', p_key, c.place) end,
                             format_type(coalesce(nullif(y.typbasetype, 0), y.oid), -1)), ' and ' order by c.place)
      from unnest(p_columns) with ordinality as c (name, place)
      left join pg_attribute as a on a.attrelid = p_relation and a.attname = c.name and not a.attisdropped
      left join pg_type as y on y.oid = a.atttypid
    having count(a.attname) = count(*)
$$;

comment on function lapse.key_match(oid, text[], text, text) is
    'Internal: SQL that compares a row''s key with a text; NULL where the table has no such columns.';
