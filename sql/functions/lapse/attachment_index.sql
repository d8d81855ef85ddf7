-- lapse.attachment_index: how the rows that name a file are found.
--
-- In: a table, the column with the storage (NULL: all in one) and the one with the path. Out: 'digest' where an index
-- on lapse.path_digest(path), alone or behind the storage, is on every partition; 'path' where a plain btree index on
-- the path is; else NULL, and the statements that create what is missing, a line each.
--
-- A path of more than 2,700 bytes does not fit a plain index, but then the application's own statement fails, not
-- ours. An index under a collation that takes different texts for equal, or of an extension's type, can't serve.

create or replace function lapse.attachment_index(
    p_target         regclass,
    p_storage_column text,
    p_path_column    text,
    out lookup       text,
    out missing      text
)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with leaf as (
        select l.relid as oid
          from (select p_target as relid where not exists (select from pg_class as c where c.oid = p_target and c.relkind = 'p')
                union all
                select t.relid from pg_partition_tree(p_target) as t where t.isleaf and t.relid <> p_target) as l
    ),
    offered as (
        select l.oid,
               bool_or(p.kind = 'digest') as digest,
               bool_or(p.kind = 'path') as path
          from leaf as l
          left join pg_index as i
            on i.indrelid = l.oid and i.indisvalid and i.indisready and i.indpred is null
           and exists (select from pg_class as c join pg_am as m on m.oid = c.relam
                        where c.oid = i.indexrelid and m.amname = 'btree')
          left join lateral (
               select case when k.digest then 'digest' when k.plain then 'path' end as kind
                 from (select n.place,
                              pg_get_indexdef(i.indexrelid, n.place, false)
                                  = format(case when a.atttypid = 'text'::regtype then 'lapse.path_digest(%I)'
                                                else 'lapse.path_digest((%I)::text)' end, a.attname) as digest,
                              (i.indkey::int2[])[n.place - 1] = a.attnum
                                  and (c.collisdeterministic or c.oid is null)
                                  and coalesce(nullif(y.typbasetype, 0), y.oid) in ('text'::regtype, 'varchar'::regtype)
                                  and o.opcdefault as plain
                         from generate_series(1, least(2, i.indnkeyatts)) as n (place)
                         join pg_attribute as a on a.attrelid = l.oid and a.attname = p_path_column
                         join pg_type as y on y.oid = a.atttypid
                         left join pg_collation as c on c.oid = (i.indcollation::oid[])[n.place - 1]
                         join pg_opclass as o on o.oid = (i.indclass::oid[])[n.place - 1]
                        where n.place = 1
                           or exists (select from pg_attribute as s
                                       where s.attrelid = l.oid and s.attname = p_storage_column
                                         and s.attnum = (i.indkey::int2[])[0])) as k
                where k.digest or k.plain
                limit 1) as p on true
         group by l.oid
    )
    select case when bool_and(coalesce(o.digest, false)) then 'digest'
                when bool_and(coalesce(o.path, false)) then 'path' end,
           case when not bool_and(coalesce(o.digest, false)) and not bool_and(coalesce(o.path, false))
                then string_agg(format('create index concurrently on %s (%s%s);', o.oid::regclass,
                                       coalesce(quote_ident(p_storage_column) || ', ', ''), d.digest),
                                chr(10) order by o.oid) filter (where not coalesce(o.digest, false)) end
      from offered as o
     cross join (select format(case when a.atttypid = 'text'::regtype then 'lapse.path_digest(%I)'
                                    else 'lapse.path_digest((%I)::text)' end, a.attname) as digest
                   from pg_attribute as a
                  where a.attrelid = p_target and a.attname = p_path_column) as d
$$;

comment on function lapse.attachment_index(regclass, text, text) is
    'Internal: by which kind of index a table''s rows are found by their file, or the statements that create one.';
