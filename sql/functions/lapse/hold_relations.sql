-- lapse.hold_relations: the tables that a hold speaks of.
--
-- In: what a hold has of its table: its number, the number that lapse.hold had when that was written, and its
-- names. Out: tables; of a partition, the whole table. They are the table that was held, whatever its name is now, and
-- whichever table has a name that it had meanwhile: what was renamed is still held, and so is what was restored
-- or copied and took its place. In doubt a row is held. The number of the table is trusted only in the
-- database where it was written: after a restore lapse.hold itself has another number, and names alone count.

create or replace function lapse.hold_relations(p_oid oid, p_oids_of oid, p_names text[])
    returns setof oid
    language sql
    stable
    rows 1
    set search_path = pg_catalog, pg_temp
as $$
    select coalesce(pg_partition_root(c.oid), c.oid)
      from pg_class as c
     where c.oid = p_oid
       and p_oids_of = 'lapse.hold'::regclass
       and c.relkind in ('r', 'p')
     union
    select c.oid
      from unnest(p_names) as n (name)
      join pg_class as c on c.oid = lapse.whole_table(n.name)
     where c.relkind in ('r', 'p')
$$;

comment on function lapse.hold_relations(oid, oid, text[]) is
    'Internal: the tables that a hold speaks of: the one that was held, and those that have a name it had.';
