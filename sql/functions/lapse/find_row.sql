-- lapse.find_row: the row that somebody means by this key.
--
-- In: a table, a key, whether to lock the row as lapse.spelled_key does. Out: the key's columns, and the key as
-- lapse.due_query spells it; NULL where there is no such row. A key is that of a policy on the table, or the primary key;
-- the first by which there is a row counts. Raises LP016 for a table that has neither.

create or replace function lapse.find_row(
    p_table regclass,
    p_key   text,
    p_lock  boolean,
    out key_columns text[],
    out key         text
)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_columns text[];
begin
    for v_columns in
        select k.key_columns
          from (select p.key_columns, 1 as rank, p.name
                  from lapse.policy as p
                 where p.name in (select lapse.policies_on(p_table))
                union all
                select array_agg(a.attname::text order by c.place), 2, null
                  from pg_index as i
                 cross join unnest(i.indkey) with ordinality as c (number, place)
                  join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = c.number
                 where i.indrelid = p_table and i.indisprimary
                 group by i.indexrelid) as k
         group by k.key_columns
         order by min(k.rank), min(k.name)
    loop
        find_row.key := lapse.spelled_key(p_table, v_columns, p_key, v_columns, p_lock);
        find_row.key_columns := v_columns;
        exit when find_row.key is not null;
    end loop;

    if find_row.key_columns is null then
        raise exception 'table % has no primary key, and no policy says what its key is', p_table
            using errcode = 'LP016', hint = 'A row can be named only by a key.';
    end if;
end;
$$;

comment on function lapse.find_row(regclass, text, boolean) is
    'Internal: the row that is meant by a key: the key''s columns, and its spelling; NULL where there is none.';
