-- lapse.judged_plan: which relations of a table a plan reads, and what is wrong with the way.
--
-- In: a plan as lapse.explained gives it, the table and its due column. Out: a row for each time that the plan
-- reads a relation of the table (itself, partitions, children): the index, if it is one, and what is
-- wrong, in words that go on from the relation's name, NULL when all is well; whether an index leads to
-- what is due, whatever order it then comes in; how it is read, and whether for the sake of locking. All is well when an index
-- takes the plan straight to the rows that are due, oldest first: its condition bounds the due column from
-- above, every column that stands before that one in the index is compared for equality, and nothing
-- sorts what it finds: a sort must read all that is due before the first row comes out. A sort that only
-- puts rows of one due time into order (an incremental one) is none.

create or replace function lapse.judged_plan(p_plan jsonb, p_target regclass, p_due text)
    returns table (relation regclass, index_name text, problem text, led boolean, kind text, locked boolean)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with recursive tree as (
        select p_target::oid as relid
        union
        select i.inhrelid from tree as t join pg_inherits as i on i.inhparent = t.relid
    ),
    nodes as (
        select p_plan -> 0 -> 'Plan' as node, false as sorted, false as locked
        union all
        select c.child, n.sorted or n.node ->> 'Node Type' = 'Sort', n.locked or n.node ->> 'Node Type' = 'LockRows'
          from nodes as n
         cross join lateral jsonb_array_elements(n.node -> 'Plans') as c (child)
    ),
    scans as (
        select t.relid, s.namespace, n.sorted, n.locked,
               n.node ->> 'Node Type'  as kind,
               n.node ->> 'Index Name' as index_name,
               n.node ->> 'Index Cond' as condition,
               n.node ->> 'Alias'      as alias
          from nodes as n
          join (select c.oid as relid, c.relname, c.relnamespace as namespace, m.nspname
                  from pg_class as c
                  join pg_namespace as m on m.oid = c.relnamespace) as s
            on s.relname = n.node ->> 'Relation Name' and s.nspname = n.node ->> 'Schema'
          join tree as t on t.relid = s.relid
         where n.node ->> 'Node Type' <> 'ModifyTable'
    )
    select s.relid::regclass,
           s.index_name,
           case
               when s.kind = 'Seq Scan'
               then 'is read from end to end'
               when s.kind not in ('Index Scan', 'Index Only Scan')
               then format('is read by a %s', lower(s.kind))
               when b.led is not true
               then format('is read through all of index %s: nothing in it leads to %s', quote_ident(s.index_name),
                           quote_ident(p_due))
               when s.sorted
               then 'gives its rows in no order: all that is due is sorted, for each batch'
           end,
           coalesce(b.led, false) and s.kind in ('Index Scan', 'Index Only Scan'),
           s.kind,
           s.locked
      from scans as s
      left join lateral (
           select strpos(s.condition, format('(%I.%I <', s.alias, p_due)) > 0
                  and not exists (
                      select
                        from unnest(x.indkey::smallint[]) with ordinality as k (attnum, place)
                        left join pg_attribute as a on a.attrelid = x.indrelid and a.attnum = k.attnum
                       where k.place < (select min(f.place)
                                          from unnest(x.indkey::smallint[]) with ordinality as f (attnum, place)
                                          join pg_attribute as d on d.attrelid = x.indrelid and d.attnum = f.attnum
                                         where d.attname = p_due)
                         and (a.attname is null
                              or strpos(s.condition, concat('(', quote_ident(s.alias), '.', quote_ident(a.attname), ' = '))
                                 + strpos(s.condition, concat('(', quote_ident(s.alias), '.', quote_ident(a.attname), ' IS NULL)'))
                                 + strpos(s.condition, concat('(', quote_ident(s.alias), '.', quote_ident(a.attname), ')::text = '))
                                 = 0)) as led
             from pg_index as x
             join pg_class as i on i.oid = x.indexrelid
            where i.relname = s.index_name and i.relnamespace = s.namespace) as b on true
$$;

comment on function lapse.judged_plan(jsonb, regclass, text) is
    'Internal: the relations of a table that a plan reads, through which index, and what is wrong with that.';
