-- lapse.index_statements: how to make the index that a policy needs, without stopping anybody.
--
-- In: a policy, and the relations that lack the index: its target, or some partitions of it. Out: the statements,
-- in order, each to be sent by itself and outside a transaction, since concurrent builds can't be in one. The
-- index is (due column, key columns), where the policy's predicate holds. One that an interrupted build
-- has left behind is built anew under its name. A partitioned table has no concurrent build: its partitions
-- get theirs one by one, and where all of them do, the table then gets one that takes these over.

create or replace function lapse.index_statements(p_policy lapse.policy, p_relations regclass[])
    returns setof text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_columns  text := (select string_agg(quote_ident(c.name), ', ' order by c.place)
                          from (select u.name, min(u.place) as place
                                  from unnest((p_policy).due_column || (p_policy).key_columns)
                                       with ordinality as u (name, place)
                                 group by u.name) as c);
    v_where    text := case when (p_policy).predicate is null                then ''
                            when (p_policy).predicate ~ '--'
                            then ' where (' || (p_policy).predicate || chr(10) || ')'
                            else ' where (' || (p_policy).predicate || ')'
                       end;
    v_target   regclass := to_regclass(lapse.quoted_name((p_policy).target_table));
    v_relation record;
    v_name     text;
    v_valid    boolean;
begin
    for v_relation in
        select c.oid, c.relname, c.relkind, c.relnamespace, n.nspname
          from pg_class as c
          join pg_namespace as n on n.oid = c.relnamespace
         where c.oid = any (p_relations)
            or c.oid = v_target
               and c.relkind = 'p'
               and (with recursive tree as (
                        select v_target::oid as relid
                        union
                        select h.inhrelid from tree as t join pg_inherits as h on h.inhparent = t.relid
                    )
                    select count(*) filter (where l.relkind <> 'p')
                      from tree as t join pg_class as l on l.oid = t.relid) = cardinality(p_relations)
         order by c.oid = v_target, c.relname, n.nspname
    loop
        -- The first name that is free, or that a build has left half done.
        for v_number in 1 .. 1000 loop
            v_name := lapse.short_name(concat_ws('_', v_relation.relname, (p_policy).name, 'due', nullif(v_number, 1)));
            select x.indisvalid or x.indrelid <> v_relation.oid
              into v_valid
              from pg_class as i
              left join pg_index as x on x.indexrelid = i.oid
             where i.relname = v_name and i.relnamespace = v_relation.relnamespace;
            exit when not found or not v_valid;
        end loop;
        return next case
            when v_relation.relkind = 'p'
            then format('create index %I on %I.%I (%s)%s;', v_name, v_relation.nspname, v_relation.relname,
                        v_columns, v_where)
            when not v_valid
            then format('reindex index concurrently %I.%I;', v_relation.nspname, v_name)
            else format('create index concurrently %I on %I.%I (%s)%s;', v_name, v_relation.nspname,
                        v_relation.relname, v_columns, v_where)
        end;
    end loop;
end;
$$;

comment on function lapse.index_statements(lapse.policy, regclass[]) is
    'The statements that make a policy''s index on the given relations, concurrently, each to be sent by itself.';
