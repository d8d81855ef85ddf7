-- lapse.equality: the operator by which two values of a type are equal, to stand between them.
--
-- In: a type. Out: = for the types that come with PostgreSQL, and for all others the operator with its schema: whoever looks
-- names up in pg_catalog alone would find none for the types of an extension, or that of text where they turn into it,
-- which no index of theirs serves. It is the one of the type's own btree index; of a domain, that of the type below.

create or replace function lapse.equality(p_type oid)
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with recursive below (oid, typbasetype, depth) as (
        select t.oid, t.typbasetype, 0 from pg_type as t where t.oid = p_type
        union all
        select t.oid, t.typbasetype, b.depth + 1 from below as b join pg_type as t on t.oid = b.typbasetype
    )
    select coalesce((select format('operator(%I.%s)', n.nspname, o.oprname)
                       from (select b.oid from below as b order by b.depth desc limit 1) as b
                       join pg_opclass as c on c.opcintype = b.oid and c.opcdefault
                       join pg_am as a on a.oid = c.opcmethod and a.amname = 'btree'
                       join pg_amop as m on m.amopfamily = c.opcfamily and m.amopstrategy = 3
                                        and m.amoplefttype = b.oid and m.amoprighttype = b.oid
                       join pg_operator as o on o.oid = m.amopopr
                       join pg_namespace as n on n.oid = o.oprnamespace
                      where n.nspname <> 'pg_catalog'
                      limit 1), '=')
$$;

comment on function lapse.equality(oid) is
    'Internal: the operator by which two values of a type are equal, with its schema where it needs one.';
