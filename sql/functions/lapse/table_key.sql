-- lapse.table_key: what tells the rows of a table apart.
--
-- In: a table. Out: the columns of its primary key, or of a unique index without NULLs, expressions and predicate,
-- in order, each with the operator that compares it, ready to stand between two values whatever the search path.
-- No row: it has no key.

create or replace function lapse.table_key(p_target regclass)
    returns table (place integer, name text, equals text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select k.place::integer, a.attname::text,
           case when n.nspname = 'pg_catalog' then o.oprname::text
                else format('operator(%I.%s)', n.nspname, o.oprname) end
      from (select i.*
              from pg_index as i
             where i.indrelid = p_target and i.indisunique and i.indisvalid and i.indimmediate
               and i.indpred is null and i.indexprs is null
               and not exists (select from unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) as c (number)
                                 join pg_attribute as a on a.attrelid = p_target and a.attnum = c.number
                                where not a.attnotnull)
             order by i.indisprimary desc, i.indnkeyatts, i.indexrelid
             limit 1) as i
     cross join lateral unnest((i.indkey::int2[])[0:i.indnkeyatts - 1], (i.indclass::oid[])[0:i.indnkeyatts - 1])
           with ordinality as k (number, opclass, place)
      join pg_attribute as a on a.attrelid = p_target and a.attnum = k.number
      join pg_opclass as c on c.oid = k.opclass
      join pg_amop as m on m.amopfamily = c.opcfamily and m.amopstrategy = 3
                       and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype
      join pg_operator as o on o.oid = m.amopopr
      join pg_namespace as n on n.oid = o.oprnamespace
$$;

comment on function lapse.table_key(regclass) is
    'Internal: the columns of a table''s key, and the operator that compares each; no row without a key.';
