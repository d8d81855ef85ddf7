-- lapse.other_meaning: would an expression mean something else where the table's own types are at home?
--
-- In: the table, a name that is free for a view, and a query that has the expression, all names in it qualified. Out: what it uses
-- in place of what, in words; NULL where nothing hangs on it. What is generated looks names up in pg_catalog alone. Most
-- of what is not there is an error; but a type of an extension that turns into one that is there, as citext does into
-- text, would be compared as that without a word, and other rows be taken than its author means. So the query becomes a view
-- twice, with the schemas of the columns' types and without, and what the server understood is compared. Nothing is executed.

create or replace function lapse.other_meaning(p_target regclass, p_view text, p_query text)
    returns text
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set client_min_messages = warning
as $$
declare
    c_parts   constant text := ':(funcid|opno|opnos) [(o ]*(\d+)';
    v_schemas text;
    v_trees   text[];
    v_said    text;
begin
    select string_agg(distinct quote_ident(n.nspname), ', ')
      into v_schemas
      from pg_attribute as a
      join pg_type as t on t.oid = a.atttypid
      join pg_type as b on b.oid in (t.oid, t.typbasetype, t.typelem)
      join pg_namespace as n on n.oid = b.typnamespace
     where a.attrelid = p_target and a.attnum > 0 and not a.attisdropped
       and b.typtype = 'b' and n.nspname <> 'pg_catalog';
    if v_schemas is null then
        return null;
    end if;

    for v_number in 1 .. 2 loop
        if v_number = 2 then
            perform set_config('search_path', format('pg_catalog, %s, pg_temp', v_schemas), true);
        end if;
        execute format('create view %s as %s', p_view, p_query);
        select v_trees || r.ev_action::text into v_trees from pg_rewrite as r where r.ev_class = p_view::regclass;
        execute format('drop view %s', p_view);
    end loop;
    perform set_config('search_path', 'pg_catalog, pg_temp', true);

    select case o.kind when 'funcid' then format('uses %s and not %s', o.oid::regprocedure, w.oid::regprocedure)
                       else format('uses %s and not %s', o.oid::regoperator, w.oid::regoperator) end
      into v_said
      from (select m[1] as kind, m[2]::oid as oid, place
              from regexp_matches(v_trees[1], c_parts, 'g') with ordinality as r (m, place)) as o
      full join (select m[1] as kind, m[2]::oid as oid, place
                   from regexp_matches(v_trees[2], c_parts, 'g') with ordinality as r (m, place)) as w
        on w.place = o.place
     where (o.kind, o.oid) is distinct from (w.kind, w.oid)
     order by coalesce(o.place, w.place)
     limit 1;
    return v_said;
end;
$$;

comment on function lapse.other_meaning(regclass, text, text) is
    'Internal: what an expression means where only pg_catalog is searched, if it would mean something else otherwise.';
