-- lapse.file_tables: the tables whose rows speak of files, and may outlive them.
--
-- Out: those with an index on lapse.path_digest, as each table of a file source needs it: the
-- last check before a file is deleted would read the whole table otherwise; and attached ones. Left
-- out are our own, and attached ones whose every row needs its file: that goes with the row,
-- and whoever refers to the row is asked by the foreign key.

create or replace function lapse.file_tables()
    returns table (relation oid, name text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select distinct c.oid, format('%I.%I', n.nspname, c.relname)
      from pg_depend as d
      join pg_index as i on i.indexrelid = d.objid
      join pg_class as c on c.oid = i.indrelid
      join pg_namespace as n on n.oid = c.relnamespace
     where d.classid = 'pg_class'::regclass
       and d.refclassid = 'pg_proc'::regclass
       and d.refobjid = 'lapse.path_digest(text)'::regprocedure
       and n.nspname <> 'lapse'
       and not exists (select from lapse.attachment as a
                        where to_regclass(a.target_table) = c.oid and a.live_when is null and a.removed_column is null)
    union
    select c.oid, format('%I.%I', n.nspname, c.relname)
      from lapse.attachment as a
      join pg_class as c on c.oid = to_regclass(a.target_table)
      join pg_namespace as n on n.oid = c.relnamespace
     where a.live_when is not null or a.removed_column is not null
$$;

comment on function lapse.file_tables() is
    'Tables whose rows speak of files and may outlive them: attached ones, and those with an index on lapse.path_digest.';
