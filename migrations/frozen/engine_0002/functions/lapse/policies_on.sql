-- lapse.policies_on: the policies that work on a table, be it on all of it or on a partition.
--
-- In: a table. Out: their names, in order.

create or replace function lapse.policies_on(p_table regclass)
    returns setof text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select p.name
      from lapse.policy as p
     where lapse.whole_table(p.target_table) = coalesce(pg_partition_root(p_table), p_table)
     order by p.name
$$;

comment on function lapse.policies_on(regclass) is
    'Internal: names of the policies whose target is this table, a part of it, or what it is a part of.';
