-- lapse.unindexed_children: foreign keys that make deleting from a table slow.
--
-- In: a table. Out: one row for each table, or partition, that refers to it by a foreign key which no
-- index serves, and that in turn for whatever cascades take along: the child, the constraint, its
-- columns, and the statement that mends it. For each row that is deleted the server looks for children,
-- whatever the constraint does with them; without an index it reads the whole child for it.
--
-- An index serves when it is valid, leads with all of the constraint's columns, in any order, in the
-- constraint's own operators and collation, and leaves no row out; one that leaves out only rows where
-- such a column is null serves too. An index that somebody began to build, or that an expression stands
-- in, does not. Reads the catalog alone: no right on the tables is needed, and no lock is taken.

create or replace function lapse.unindexed_children(p_target regclass)
    returns table (child regclass, constraint_name text, columns text[], statement text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with recursive reached as (  -- the tables, and their partitions, that a deletion gets to
        select p_target::oid as relid
        union
        select u.relid
          from reached as r
         cross join lateral (
               select i.inhrelid
                 from pg_inherits as i
                where i.inhparent = r.relid
                union all
               select k.conrelid
                 from pg_constraint as k
                where k.contype = 'f' and k.confrelid = r.relid and k.confdeltype = 'c') as u (relid)
    ),
    referring as (  -- each foreign key on each table that holds rows itself; a partition's columns have numbers of their own
        select distinct on (l.relid, n.names)
               l.relid, n.names, k.conname,
               array(select a.attnum
                       from unnest(n.names) with ordinality as c (name, place)
                       join pg_attribute as a on a.attrelid = l.relid and a.attname = c.name
                      order by c.place) as attnums,
               k.conpfeqop as operators
          from reached as r
          join pg_constraint as k on k.confrelid = r.relid and k.contype = 'f'
         cross join lateral (
               select array_agg(a.attname::text order by c.place) as names
                 from unnest(k.conkey) with ordinality as c (attnum, place)
                 join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = c.attnum) as n
         cross join lateral (
               with recursive held as (
                   select k.conrelid as relid
                   union
                   select i.inhrelid
                     from held as h
                     join pg_class as p on p.oid = h.relid and p.relkind = 'p'
                     join pg_inherits as i on i.inhparent = h.relid
               )
               select h.relid from held as h) as l
          join pg_class as c on c.oid = l.relid and c.relkind = 'r'
         order by l.relid, n.names, k.conparentid <> 0, k.conname
    )
    select f.relid::regclass,
           f.conname::text,
           f.names,
           coalesce((select format('reindex index concurrently %I.%I;', n.nspname, i.relname)
                       from pg_index as x
                       join pg_class as i on i.oid = x.indexrelid
                       join pg_namespace as n on n.oid = i.relnamespace
                      where x.indrelid = f.relid
                        and not x.indisvalid
                        and x.indpred is null
                        and array(select unnest(x.indkey::smallint[])) = f.attnums
                      order by i.relname
                      limit 1),
                    format('create index concurrently on %I.%I (%s);', m.nspname, c.relname,
                           (select string_agg(quote_ident(n.name), ', ' order by n.place)
                              from unnest(f.names) with ordinality as n (name, place))))
      from referring as f
      join pg_class as c on c.oid = f.relid
      join pg_namespace as m on m.oid = c.relnamespace
     where not exists (
           select
             from pg_index as x
             join pg_class as i on i.oid = x.indexrelid
             join pg_am as m on m.oid = i.relam
            where x.indrelid = f.relid
              and x.indisvalid
              and (m.amname = 'btree' or m.amname = 'hash' and cardinality(f.attnums) = 1)
              and not exists (  -- each of the columns stands among the first ones, and can be looked up
                  select
                    from unnest(f.attnums, f.operators) as w (attnum, op)
                    join pg_attribute as a on a.attrelid = f.relid and a.attnum = w.attnum
                   where not exists (
                         select
                           from unnest(x.indkey::smallint[], x.indclass::oid[], x.indcollation::oid[])
                                with ordinality as h (attnum, opclass, coll, place)
                           join pg_opclass as o on o.oid = h.opclass
                           join pg_amop as p on p.amopfamily = o.opcfamily and p.amopopr = w.op
                          where h.place <= cardinality(f.attnums)
                            and h.attnum = w.attnum
                            and h.coll in (0, a.attcollation)))
              and (x.indpred is null
                   or regexp_replace(
                          regexp_replace(
                              pg_get_expr(x.indpred, x.indrelid),
                              (select string_agg('\(' || regexp_replace(quote_ident(n.name), '(\W)', '\\\1', 'g')
                                                 || ' IS NOT NULL\)', '|')
                                 from unnest(f.names) as n (name)),
                              '', 'g'),
                          '\mAND\M|[()\s]', '', 'g') = ''))
     order by f.relid::regclass::text, f.names
$$;

comment on function lapse.unindexed_children(regclass) is
    'Foreign keys to a table, and to what cascades take along, that no index serves, with the statement that makes one.';
