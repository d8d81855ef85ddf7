-- lapse.check_row_expression: may this expression say something about a row of a table?
--
-- In: the table, the expression, the type that it must have, and how to speak of it. Out: nothing. LP036 with the
-- reason unless it is one expression over the columns of one row: no sub-select, no other table, no aggregate,
-- nothing volatile, nothing that hangs on what time it is (no statement changes a row when its time comes, so no trigger would
-- see it, and a time that is always ahead never comes), and no column that a trigger can't see.
--
-- PostgreSQL itself judges it: a view is made of it, just where it will stand, looked at and undone. A cursor is
-- opened over it first, since what holds several statements can't have one. The view's rule says what the
-- expression is made of: which functions, which tables, which columns. All with the caller's own rights.

create or replace function lapse.check_row_expression(p_target regclass, p_expression text, p_type text, p_what text)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_schema text := (select n.nspname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
                       where c.oid = p_target);
    v_view   text := format('%I.%I', v_schema, 'lapse_check_' || pg_backend_pid());
    v_query  text;
    v_row    record;
    v_rule   text;
    v_found  text;
    v_type   text;
    v_hint   text := format('Write one expression of type %s over the columns of a row, with literals, '
                            'and name what is not in pg_catalog with its schema.', p_type);
begin
    if p_expression !~ '\S' then
        raise exception 'the % of table % is empty', p_what, p_target
            using errcode = 'LP036', hint = 'Leave the argument out for none.';
    end if;

    v_query := format('select coalesce((%s' || chr(10) || '), null) as verdict from %s as t', p_expression, p_target);

    begin
        for v_row in execute format('select from %s as t where (%s' || chr(10) || ') is null limit 0', p_target, p_expression) loop
            exit;
        end loop;
        for v_row in execute v_query || ' limit 0' loop
            exit;
        end loop;

        execute format('create view %s as %s', v_view, v_query);

        select r.ev_action::text, format_type(a.atttypid, null)
          into v_rule, v_type
          from pg_rewrite as r
          join pg_attribute as a on a.attrelid = r.ev_class and a.attnum = 1
         where r.ev_class = to_regclass(v_view);

        v_found := case
            when v_rule ~ ':hasSubLinks true' then 'it has a sub-select'
            when v_rule ~ ':hasAggs true' then 'it has an aggregate'
            when v_rule ~ ':hasWindowFuncs true' then 'it has a window function'
            when v_rule ~ ':hasTargetSRFs true' then 'it gives more than one row'
            when v_type <> p_type then format('it is %s, not %s', v_type, p_type)
            when exists (select from pg_attribute as a where a.attrelid = to_regclass(v_view) and a.attnum > 1)
                then 'it is more than one expression'
        end;

        if v_found is null then
            select format('%s is volatile: its answer is another each time', p.oid::regprocedure)
              into v_found
              from (select f[1]::oid as oid from regexp_matches(v_rule, ':(?:funcid|opfuncid|aggfnoid) (\d+)', 'g') as f
                    union
                    select o.oprcode from regexp_matches(v_rule, ':opno (\d+)', 'g') as f
                      join pg_operator as o on o.oid = f[1]::oid) as u
              join pg_proc as p on p.oid = u.oid
             where p.provolatile = 'v'
             limit 1;
        end if;

        if v_found is null then
            select format('it looks at %s', d.refobjid::regclass)
              into v_found
              from pg_depend as d
              join pg_rewrite as r on r.oid = d.objid
             where d.classid = 'pg_rewrite'::regclass and r.ev_class = to_regclass(v_view)
               and d.refclassid = 'pg_class'::regclass and d.refobjid not in (p_target, to_regclass(v_view))
             limit 1;
        end if;

        if v_found is null then
            select case when a.attnum < 0 then format('%s is a system column', a.attname)
                        else format('column %s is a virtual one, which a trigger can''t see', a.attname) end
              into v_found
              from pg_attribute as a
             where a.attrelid = p_target and not a.attisdropped
               and (a.attnum < 0 and v_rule ~ format(':varattno %s ', a.attnum)
                    or a.attgenerated = 'v' and v_rule ~ format(':varattno %s ', a.attnum))
             limit 1;
        end if;

        if v_found is null and (v_rule ~ '{SQLVALUEFUNCTION :op [0-8] '
                                or exists (select
                                             from regexp_matches(v_rule, ':funcid (\d+)', 'g') as f
                                             join pg_proc as p on p.oid = f[1]::oid
                                            where p.pronamespace = 'pg_catalog'::regnamespace
                                              and p.proname in ('now', 'transaction_timestamp', 'statement_timestamp'))) then
            v_found := 'it hangs on what time it is: nobody changes the row when its answer changes, so nobody would queue the file';
            v_hint := 'Compare columns with each other. When a file may go is said by p_due, a column or an expression over '
                      'columns, or by p_grace.';
        end if;

        if v_found is null then
            v_found := 'it ' || lapse.other_meaning(p_target, v_view || '_', v_query)
                             || ', since names are looked up in pg_catalog alone';
        end if;

        raise exception 'undone' using errcode = 'ZZ999';
    exception
        when sqlstate 'ZZ999' then
            null;  -- the view is gone; what was found out stays
        when others then
            v_found := sqlerrm;
    end;

    if v_found is not null then
        raise exception 'the % of table % does not work: %', p_what, p_target, v_found
            using errcode = 'LP036',
                  detail = p_expression,
                  hint = v_hint;
    end if;
end;
$$;

comment on function lapse.check_row_expression(regclass, text, text, text) is
    'Internal: raise LP036 unless an expression says something about one row of a table by its columns alone.';
