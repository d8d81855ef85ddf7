-- lapse.file_tables: the tables whose rows speak of files.
--
-- Out: those with an index on lapse.path_digest, as each table of a file source needs it: the
-- last check before a file is deleted would read the whole table otherwise. Ours are left out.

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
$$;

comment on function lapse.file_tables() is
    'Tables whose rows speak of files: those with an index on lapse.path_digest.';
