-- lapse.attached_relations: a table and all that it is made of.
--
-- In: a table. Out: itself and its partitions, at every level, and which of them hold rows. Statements that name a
-- partition fire its triggers alone, so each has its own.

create or replace function lapse.attached_relations(p_target regclass)
    returns table (relation regclass, holds_rows boolean)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select c.oid::regclass, c.relkind <> 'p'
      from pg_class as c
     where c.oid = p_target
    union
    select t.relid, c.relkind <> 'p'
      from pg_partition_tree(p_target) as t
      join pg_class as c on c.oid = t.relid
$$;

comment on function lapse.attached_relations(regclass) is
    'Internal: a table and its partitions, and which of them hold rows.';
