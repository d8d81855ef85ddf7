-- lapse.foreign_code: would a query on this table run what somebody else wrote?
--
-- In: a table. Out: the name of a function, operator or domain that belongs neither to the caller nor to a superuser, and that
-- stands in an index, a constraint, statistics or the partitioning of the table or of what hangs below it; NULL where there is
-- none. To plan a query is to run the constant parts of these, with the rights of whoever asks: a superuser
-- who only counts the rows of such a table has run its owner's code. Reads the catalog alone.

create or replace function lapse.foreign_code(p_relation regclass)
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with recursive tree as (
        select p_relation::oid as relid
        union
        select i.inhrelid from tree as t join pg_inherits as i on i.inhparent = t.relid
    ),
    parts as (
        select 'pg_class'::regclass::oid as class, t.relid as object from tree as t
        union all
        select 'pg_class'::regclass, x.indexrelid from tree as t join pg_index as x on x.indrelid = t.relid
        union all
        select 'pg_constraint'::regclass, k.oid
          from tree as t
          join pg_constraint as k on k.conrelid = t.relid
         where current_setting('constraint_exclusion') = 'on'
            or exists (select from pg_inherits as i where t.relid in (i.inhrelid, i.inhparent))
        union all
        select 'pg_statistic_ext'::regclass, s.oid from tree as t join pg_statistic_ext as s on s.stxrelid = t.relid
    )
    select min(w.name)
      from parts as p
      join pg_depend as d on d.classid = p.class and d.objid = p.object
      join (select 'pg_proc'::regclass::oid as class, f.oid as object, f.proowner as owner, f.oid::regprocedure::text as name
              from pg_proc as f
             union all
            select 'pg_operator'::regclass, o.oid, o.oprowner, o.oid::regoperator::text from pg_operator as o
             union all
            select 'pg_type'::regclass, y.oid, y.typowner, y.oid::regtype::text from pg_type as y where y.typtype = 'd') as w
        on w.class = d.refclassid and w.object = d.refobjid
      join pg_roles as r on r.oid = w.owner
     where not r.rolsuper
       and r.rolname <> current_user
$$;

comment on function lapse.foreign_code(regclass) is
    'Internal: what of somebody else''s a query on a table would run with the caller''s rights; NULL: nothing.';
