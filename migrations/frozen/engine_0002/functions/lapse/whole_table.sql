-- lapse.whole_table: the table that a name stands for; of a partition, the table that it is a part of.
--
-- In: a name, schema.table. Out: the table; NULL where there is none of that name.

create or replace function lapse.whole_table(p_name text)
    returns regclass
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select coalesce(pg_partition_root(t.oid), t.oid)
      from (select to_regclass(lapse.quoted_name(p_name)) as oid) as t
$$;

comment on function lapse.whole_table(text) is
    'Internal: the table of this name; of a partition, the partitioned table; NULL where there is none.';
