-- lapse.watched_tables: the tables that pglapse depends on.
--
-- Out: its own; the targets of policies; those with a trigger of ours; and all partitions of
-- these. For checks: what ails one of them ails us.

create or replace function lapse.watched_tables()
    returns table (relation oid, name text, ours boolean)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with named as (
        select c.oid from pg_class as c where c.relnamespace = 'lapse'::regnamespace and c.relkind = 'r'
        union
        select to_regclass(lapse.quoted_name(p.target_table))::oid from lapse.policy as p where p.target_table is not null
        union
        select t.relation from lapse.own_triggers() as t
    ),
    whole as (
        select n.oid from named as n
        union
        select t.relid::oid from named as n join pg_class as c on c.oid = n.oid and c.relkind = 'p',
               lateral pg_partition_tree(n.oid) as t
    )
    select c.oid, format('%I.%I', s.nspname, c.relname), s.nspname = 'lapse'
      from whole as w
      join pg_class as c on c.oid = w.oid
      join pg_namespace as s on s.oid = c.relnamespace
$$;

comment on function lapse.watched_tables() is
    'The tables that pglapse depends on: its own, policies'' targets, those with its triggers, and their partitions.';
