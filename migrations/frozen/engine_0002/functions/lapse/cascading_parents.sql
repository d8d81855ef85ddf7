-- lapse.cascading_parents: which rows would take this one with them when a policy deletes them.
--
-- In: a table, and columns and value of a row's key. Out: policies on tables that this one refers to with on delete
-- cascade, at up to five removes, with the table and the key of the row there. Follows each chain of foreign keys from the
-- row itself, so that the keys are those of its own parents.

create or replace function lapse.cascading_parents(p_table regclass, p_columns text[], p_key text)
    returns table (policy text, target text, key text)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set row_security = off  -- a hidden row is an error, not a row that is not there
    set timezone = 'UTC'
    set datestyle = 'ISO'
    set intervalstyle = 'postgres'
    set bytea_output = 'hex'
    set extra_float_digits = 1
as $$
#variable_conflict use_column
declare
    v_chain record;
begin
    for v_chain in
        with recursive up (parent, depth, joins, seen) as (
            select p_table::oid, 0, '' collate "C", array[p_table::oid]
            union all
            select f.confrelid, u.depth + 1,
                   u.joins || format(' join %s as t%s on %s', f.confrelid::regclass, u.depth + 1, o.condition),
                   u.seen || f.confrelid
              from up as u
              join pg_constraint as f
                on f.conrelid = u.parent and f.contype = 'f' and f.confdeltype = 'c' and f.conparentid = 0
               and f.confrelid <> all (u.seen)
             cross join lateral (
                   -- The constraint's own operators, which no search path hides.
                   select string_agg(format('t%s.%I operator(%I.%s) t%s.%I', u.depth + 1, pa.attname, n.nspname, e.oprname,
                                            u.depth, ca.attname), ' and ')
                     from unnest(f.conkey, f.confkey, f.conpfeqop) as c (child, parent, equals)
                     join pg_operator as e on e.oid = c.equals
                     join pg_namespace as n on n.oid = e.oprnamespace
                     join pg_attribute as ca on ca.attrelid = f.conrelid and ca.attnum = c.child
                     join pg_attribute as pa on pa.attrelid = f.confrelid and pa.attnum = c.parent) as o (condition)
             where u.depth < 5
        )
        select p.name, p.target_table, p.key_columns, u.depth, u.joins
          from up as u
          join lapse.policy as p
            on lapse.whole_table(p.target_table) = coalesce(pg_partition_root(u.parent), u.parent)
         where u.depth > 0
         order by p.name, u.depth
    loop
        policy := v_chain.name;
        target := v_chain.target_table;
        execute format('select %s from %s as t0%s where %s', lapse.key_expression(v_chain.key_columns, 't' || v_chain.depth),
                       p_table, v_chain.joins, lapse.key_condition(p_table, p_columns, 't0'))
           into key
          using lapse.key_values(p_key, cardinality(p_columns));
        if key is not null then
            return next;
        end if;
    end loop;
end;
$$;

comment on function lapse.cascading_parents(regclass, text[], text) is
    'Internal: policies that could delete a row by deleting one that it refers to, and the keys of those.';
