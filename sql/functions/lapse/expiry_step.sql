-- lapse.expiry_step: writes the step of a declared policy.
--
-- In: the policy, the SET list of an update or the function of a call, and the types of the key columns. Out: the
-- CREATE FUNCTION statement. See DESIGN for the contract and market.expire_coupons for the shape: pick and
-- lock, oldest first, then act by key, in statements of their own, so that the second sees what was committed
-- before it began. Each variable is qualified with the block's name, and where a name could mean a column
-- it does, so that no column, whatever it is called, now or later, is taken for a variable or the other way round.

create or replace function lapse.expiry_step(p_policy lapse.policy, p_what text, p_types text[])
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
    set intervalstyle = 'postgres'
as $$
    select format('create or replace function %s(p_limit integer, p_cutoff timestamptz, p_after timestamptz)'
                  || chr(10) || '    returns lapse.progress' || chr(10), p_policy.step)
           || lapse.expiry_settings()
           || format('as %L', b.body)
      from (select string_agg(format('    v_key_%s   %s[];' || chr(10), c.place, t.type), '' order by c.place) as declared,
                   string_agg(format('t.%I as key_%s', c.name, c.place), ', ' order by c.place) as picked,
                   string_agg(format('array_agg(d.key_%s)', c.place), ', ' order by c.place) as collected,
                   string_agg(format('v_key_%s', c.place), ', ' order by c.place) as variables,
                   array_agg(format('step.v_key_%s', c.place) order by c.place) as arrays,
                   string_agg(format('t.%I', c.name), ', ' order by c.place) as sorted,
                   case when count(*) = 1 then max(format('t.%I::text', c.name))
                        else format('array[%s]::text', string_agg(format('t.%I::text', c.name), ', ' order by c.place))
                   end as key
              from unnest(p_policy.key_columns) with ordinality as c (name, place)
              join unnest(p_types) with ordinality as t (type, place) on t.place = c.place) as k
     cross join lateral (
           select num_nonnulls(p_policy.older_than, p_policy.due_zone) > 0 as shifted,
                  case when p_policy.due_zone is null then 'timestamptz' else 'timestamp' end as type) as w
     cross join lateral (
           select case when not w.shifted                then '%s'
                       when p_policy.due_zone is null    then 'timezone(''UTC'', timezone(''UTC'', %s) - v_shift)'
                       else 'timezone(''UTC'', %s) - v_shift'
                  end as column_of,
                  case when not w.shifted                then 'd.due'
                       when p_policy.due_zone is null    then 'timezone(''UTC'', timezone(''UTC'', d.due) + step.v_shift)'
                       else 'timezone(''UTC'', d.due + step.v_shift)'
                  end as time_of,
                  case when p_policy.predicate like '%--%' then chr(10) else '' end as line_end) as f
     cross join lateral (
           select concat(
               chr(10),
               -- A name may have a line break, which would end the comment.
               translate(format('-- %s: one batch of policy %s: rows of %s that are due are %s.',
                                p_policy.step, p_policy.name, p_policy.target_table,
                                case p_policy.action when 'delete' then 'deleted' when 'update' then 'updated'
                                                     else 'handed to ' || p_what end), chr(10) || chr(13), '  ') || chr(10),
               '--' || chr(10),
               '-- Made by lapse.create_expiry, whose next call makes it anew: don''t edit. In: at most p_limit rows, due at' || chr(10),
               '-- p_cutoff or before, starting at due time p_after (inclusive), oldest first. Out: rows picked, rows done with,' || chr(10),
               '-- and the due time reached. A row locked elsewhere, by somebody who renews it now, is skipped. It runs with the' || chr(10),
               '-- rights of the table''s owner.' || chr(10),
               '#variable_conflict use_column' || chr(10),
               '<<step>>' || chr(10),
               'declare' || chr(10),
               '    v_limit   constant integer     := p_limit;' || chr(10),
               '    v_cutoff  constant timestamptz := p_cutoff;' || chr(10),
               case when w.shifted
                    then format('    v_shift   constant interval    := lapse.due_shift(p_cutoff, %L, %L);  -- due = column + this' || chr(10),
                                p_policy.older_than, p_policy.due_zone) end,
               format('    v_since   constant %s := %s;' || chr(10), rpad(w.type, 11), format(f.column_of, 'p_after')),
               format('    v_until   constant %s := %s;' || chr(10), rpad(w.type, 11), format(f.column_of, 'p_cutoff')),
               k.declared,
               '    v_reached timestamptz;' || chr(10),
               '    v_picked  integer;' || chr(10),
               '    v_handled integer := 0;' || chr(10),
               'begin' || chr(10),
               '    with due as materialized (' || chr(10),
               format('        select %s, t.%I as due' || chr(10), k.picked, p_policy.due_column),
               format('          from %s as t' || chr(10), lapse.quoted_name(p_policy.target_table)),
               '         where ',
               case when p_policy.predicate is not null
                    then format('(%s%s)' || chr(10) || '           and ', p_policy.predicate, f.line_end) end,
               format('t.%I >= step.v_since' || chr(10), p_policy.due_column),
               format('           and t.%I <= step.v_until' || chr(10), p_policy.due_column),
               format('           and %s not in (select lapse.blocked_keys(%L, step.v_cutoff))' || chr(10), k.key, p_policy.name),
               format('         order by t.%I, %s' || chr(10), p_policy.due_column, k.sorted),
               '         limit step.v_limit' || chr(10),
               '           for update of t skip locked' || chr(10),
               '    )' || chr(10),
               format('    select %s, count(*), max(%s)' || chr(10), k.collected, f.time_of),
               format('      into %s, v_picked, v_reached' || chr(10), k.variables),
               '      from due as d;' || chr(10),
               chr(10),
               '    if v_picked > 0 then' || chr(10),
               case when p_policy.action = 'call' then format('        perform %s(%s);' || chr(10), p_what, array_to_string(k.arrays, ', ')) end,
               format('        %s;' || chr(10), lapse.expiry_act(p_policy, p_what, k.arrays, 'step.v_until', ' into v_handled')),
               '    end if;' || chr(10),
               '    return row(v_picked, v_handled, v_reached)::lapse.progress;' || chr(10),
               'end;' || chr(10)) as body) as b
$$;

comment on function lapse.expiry_step(lapse.policy, text, text[]) is
    'Internal: the CREATE FUNCTION statement of a declared policy''s step.';
