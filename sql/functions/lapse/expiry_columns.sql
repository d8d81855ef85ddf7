-- lapse.expiry_columns: is this one expression over a table's columns, and which of them does it read?
--
-- In: the table, the policy's name, what the expression is called in messages, the expression, and whether it is
-- the condition for being due. Out: the names of the columns that it reads; all of them where it takes the whole row. Raises
-- LP023 for what is not one expression, has a sub-select, an aggregate or the like, and as a condition for what
-- is not boolean or is volatile: it would say something else each time.
--
-- Nothing of it is executed, and no plan is made, which would execute some: whoever calls may have other rights
-- than the table's owner, and types and functions behind the expression are the owner's. The probes are the bodies of
-- functions, which the server parses and does not run. What stands both in brackets and in parentheses closes
-- neither, and nothing after it has a quote that could end one of its own; so it is one expression, and a view can hold
-- it. In that view's tree the server has written down which functions and columns the expression means.

create or replace function lapse.expiry_columns(
    p_target     regclass,
    p_policy     text,
    p_what       text,
    p_expression text,
    p_condition  boolean
)
    returns text[]
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set check_function_bodies = on
    set standard_conforming_strings = on
    set client_min_messages = warning
as $$
declare
    c_code    constant text := 'LP023';
    v_name    text := (select format('%I.%I', n.nspname, lapse.generated_name('probe', p_policy))
                         from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where c.oid = p_target);
    v_before  text := format('with t as (select t.*, t.tableoid from %s as t) select ', p_target);
    v_body    text;
    v_tree    text;
    v_wrong   text;
    v_columns text[];
    v_query   text;
    v_other   text;
begin
    if p_expression !~ '\S' then
        raise exception using
            errcode = c_code,
            message = format('policy %s: %s on table %s is empty', p_policy, p_what, p_target),
            hint    = case when p_condition then 'Leave p_predicate out if all rows are meant.' else 'Write an expression, such as now().' end;
    end if;
    begin
        foreach v_body in array array[
            v_before || 'array[' || p_expression || chr(10) || '] from t',
            v_before || '(' || p_expression || chr(10) || ') is ' || case when p_condition then 'true' else 'null' end || ' from t'
        ] loop
            execute format('create function %s() returns void language sql set search_path = pg_catalog, pg_temp as %L',
                           v_name, v_body);
            execute format('drop function %s()', v_name);
        end loop;

        v_query := case when p_condition then format('select from %s as t where (%s' || chr(10) || ')', p_target, p_expression)
                        else format('select (%s' || chr(10) || ') as value from %s as t', p_expression, p_target) end;
        execute format('create view %s as %s', v_name, v_query);
        select r.ev_action::text into v_tree from pg_rewrite as r where r.ev_class = v_name::regclass;
        select array_agg(distinct a.attname::text)
          into v_columns
          from pg_rewrite as r
          join pg_depend as d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
                             and d.refclassid = 'pg_class'::regclass and d.refobjid = p_target
          join pg_attribute as a on a.attrelid = d.refobjid and a.attnum > 0 and not a.attisdropped
                                and (a.attnum = d.refobjsubid or v_tree like '%:varattno 0 %')
         where r.ev_class = v_name::regclass;
        execute format('drop view %s', v_name);
        v_other := lapse.other_meaning(p_target, v_name, v_query);
    exception
        when others then
            raise exception using
                errcode = c_code,
                message = format('policy %s: %s on table %s does not work: %s', p_policy, p_what, p_target, sqlerrm),
                hint    = case when p_condition
                               then 'Write a condition over the table''s columns, with literals: status = ''active''.'
                               else 'Write an expression over the table''s columns, such as now().' end
                          || case when left(sqlstate, 2) = '42' and sqlstate <> '42601'
                                  then ' What is not in pg_catalog needs its schema: x::app.kind, app.f(x), x operator(app.=) y.'
                                  else '' end;
    end;

    v_wrong := case
        when v_tree like '%{SUBLINK %'          then 'a sub-select: other rows, or other tables, may change without this one'
        when v_tree like '%{AGGREF %'           then 'an aggregate'
        when v_tree like '%{WINDOWFUNC %'       then 'a window function'
        when v_tree like '%:funcretset true%'   then 'a function that returns sets'
        when p_condition
        then (select 'a volatile function, ' || p.oid::regprocedure || ': it would say something else each time'
                from regexp_matches(v_tree, ':(?:funcid|opfuncid) (\d+)', 'g') as m (found)
                join pg_proc as p on p.oid = m.found[1]::oid
               where p.provolatile = 'v'
               limit 1)
    end;
    if v_wrong is not null then
        raise exception using
            errcode = c_code,
            message = format('policy %s: %s on table %s has %s', p_policy, p_what, p_target, v_wrong),
            hint    = 'Use columns of the table itself and functions of them; what else is needed belongs in a column, '
                      'or in a step of your own.';
    end if;
    if v_other is not null then
        raise exception using
            errcode = c_code,
            message = format('policy %s: %s on table %s %s, since names are looked up in pg_catalog alone', p_policy, p_what, p_target, v_other),
            hint    = 'Say which one is meant, a operator(schema.=) b or schema.f(a), or cast the column, a::text = b.';
    end if;
    return coalesce(v_columns, '{}');
end;
$$;

comment on function lapse.expiry_columns(regclass, text, text, text, boolean) is
    'Internal: the columns that an expression reads; raises LP023 for what is not one plain expression over a table.';
