-- lapse.create_expiry: from now on, rows of this table lapse.
--
-- In: a name, the table, and the column that says when a row is due, or with p_older_than since when it ages;
-- everything else may be left out. Out: nothing. It writes the step as a function beside the table, readable with \sf, and makes the
-- policy that runs it. Raises, each with what to do: LP001 for a value out of range, LP003 for a name that is
-- taken, LP020 for what is no table to sweep, LP021 for one without a key, LP022 for a missing right, LP023 for a
-- predicate or an expression that is not one, LP024 for a retention that nobody gave, LP025 for rows that row-level
-- security would hide, LP026 for an action that could not work, LP027 where no index serves, LP028 where something else has
-- the name of a function. Nothing is left of what is refused, nor of a transaction that is rolled back.
--
-- Actions: delete; update, with p_set, columns and values; call, with p_function, which gets an array for each key column.
-- A run that would take more than p_max_fraction of the table and more than p_brake_rows takes nothing and asks; NULL: no brake.
-- p_index: require an index, build it here and now (which locks the table against writes), or leave it for later: the
-- policy is paused until pglapse index has built it. With p_replace a policy that was declared before is changed in place and
-- keeps its state and history; the same call again changes nothing.
--
-- The retention's default is an odd interval, as nobody gives one by accident. NULL must be told from left out: a
-- NULL comes from a setting that is missing, and taken for "none" it would make every row due that was ever written.
--
-- Runs with its caller's rights, who must be able to act as the table's owner; see lapse.enter_expiry for how the policy
-- gets where only the engine's owner may write. Everything that the predicate says is executed as the table's owner alone.

create or replace function lapse.create_expiry(
    p_name         text,
    p_target       regclass,
    p_due_column   text,
    p_predicate    text     default null,
    p_action       text     default 'delete',
    p_older_than   interval default '-1 month +30 days',
    p_due_zone     text     default null,
    p_set          jsonb    default null,
    p_function     text     default null,
    p_key_columns  text[]   default null,
    p_every        interval default '10 min',
    p_at_time      time     default null,
    p_time_zone    text     default 'UTC',
    p_batch_size   integer  default 1000,
    p_max_runtime  interval default '20 s',
    p_lock_timeout interval default '200 ms',
    p_max_fraction numeric  default 0.5,
    p_brake_rows   bigint   default 10000,
    p_index        text     default 'require',
    p_description  text     default null,
    p_enabled      boolean  default null,
    p_replace      boolean  default false
)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set timezone = 'UTC'
    set datestyle = 'ISO'
    set intervalstyle = 'postgres'
    set standard_conforming_strings = on
as $$
declare
    c_left_out constant text := '-1 mons +30 days';
    c_step     constant text := '(integer, timestamp with time zone, timestamp with time zone)';
    c_due      constant text := '(text, timestamp with time zone, timestamp with time zone, integer, regclass, text[])';
    v_policy   lapse.policy;
    v_schema   name;
    v_owner    name;
    v_engine   name;
    v_due      text;
    v_decide   text[];
    v_types    text[];
    v_what     text;
    v_sources  text[];
    v_said     text;
    v_known    record;
    v_found    record;
    v_wrong    text;
    v_hint     text;
begin
    v_wrong := case
        when p_name is null       then 'p_name'
        when p_target is null     then 'p_target'
        when p_due_column is null then 'p_due_column'
        when p_action is null     then 'p_action'
        when p_index is null      then 'p_index'
        when p_replace is null    then 'p_replace'
    end;
    if v_wrong is not null then
        raise exception using
            errcode = 'LP001',
            message = format('%s may not be NULL', v_wrong),
            hint    = case when v_wrong in ('p_name', 'p_target', 'p_due_column')
                           then 'Name the policy, a table that is there, and the column that says when a row is due.'
                           else 'Leave the argument out to have its default.' end;
    end if;
    select w.code, w.wrong, w.hint
      into v_said, v_wrong, v_hint
      from (values
          (p_name !~ '^[a-z][a-z0-9_]{0,62}$', 'LP001', format('"%s" is not a name for a policy', p_name),
           'Use a lower-case letter, then up to 62 lower-case letters, digits and underscores.'),
          (p_action not in ('delete', 'update', 'call'), 'LP001', format('there is no action "%s"', p_action),
           'Use delete, update or call.'),
          (p_index not in ('require', 'build', 'later'), 'LP001', format('p_index can''t be "%s"', p_index),
           'Use require, build or later.'),
          (p_older_than is null, 'LP024',
           format('policy %s: nobody says how old rows of %s may get: p_older_than is NULL', p_name, p_target),
           format('Give an age. If %I itself says when a row is due, leave p_older_than out.', p_due_column)),
          (p_older_than::text <> c_left_out
               and (not isfinite(p_older_than) or p_older_than not between interval '1 microsecond' and interval '1000 years'
                    or p_older_than::text like '%-%'), 'LP024',
           format('policy %s: rows of %s can''t lapse when %s is %s old', p_name, p_target, p_due_column, p_older_than),
           'p_older_than is a span of time, all its parts forwards, up to 1,000 years: interval ''30 days''.'),
          (p_action <> 'update' and p_set is not null, 'LP026',
           format('policy %s: p_set does not go with action %s', p_name, p_action), 'Use p_action => ''update''.'),
          (p_action <> 'call' and p_function is not null, 'LP026',
           format('policy %s: p_function does not go with action %s', p_name, p_action), 'Use p_action => ''call''.')
      ) as w (is_wrong, code, wrong, hint)
     where w.is_wrong
     limit 1;
    if found then
        raise exception using errcode = v_said, message = v_wrong, hint = v_hint;
    end if;

    -- Two sessions that declare the same policy take turns; a batch of it is held up by neither.
    perform pg_advisory_xact_lock(1818324342, hashtext(p_name));
    perform lapse.check_expiry_target(p_target, p_name);

    select n.nspname, pg_get_userbyid(c.relowner), format('%I.%I', n.nspname, c.relname)
      into v_schema, v_owner, v_policy.target_table
      from pg_class as c
      join pg_namespace as n on n.oid = c.relnamespace
     where c.oid = p_target;
    v_policy.name         := p_name;
    v_policy.step         := format('%I.%I', v_schema, lapse.generated_name('expire', p_name));
    v_policy.action       := p_action;
    v_policy.due_column   := p_due_column;
    v_policy.predicate    := p_predicate;
    v_policy.older_than   := case when p_older_than::text <> c_left_out then p_older_than end;
    v_policy.due_zone     := p_due_zone;
    v_policy.every        := p_every;
    v_policy.at_time      := p_at_time;
    v_policy.time_zone    := p_time_zone;
    v_policy.batch_size   := p_batch_size;
    v_policy.max_runtime  := p_max_runtime;
    v_policy.lock_timeout := p_lock_timeout;
    v_policy.max_fraction := p_max_fraction;
    v_policy.brake_rows   := case when p_max_fraction is not null then p_brake_rows end;
    v_policy.enabled      := case when p_index = 'later' and p_enabled is null then false else p_enabled end;
    v_policy.key_columns  := lapse.expiry_key(p_target, p_name, p_key_columns);
    v_policy.description  := coalesce(p_description, format('Rows of %s are %s when %s.', v_policy.target_table,
        case p_action when 'delete' then 'deleted' when 'update' then 'updated' else 'handed to ' || p_function end,
        case when v_policy.older_than is null then p_due_column || ' has come'
             else format('%s is %s old', p_due_column, v_policy.older_than) end));

    v_decide := array[p_due_column];
    if p_predicate is not null then
        v_decide := v_decide || lapse.expiry_columns(p_target, p_name, 'the predicate', p_predicate, true);
    end if;
    select array_agg(format_type(a.atttypid, a.atttypmod) order by c.place)
      into v_types
      from unnest(v_policy.key_columns) with ordinality as c (name, place)
      join pg_attribute as a on a.attrelid = p_target and a.attname = c.name;
    v_what := case p_action
        when 'update' then lapse.expiry_assignments(p_target, p_name, p_set, v_decide)
        when 'call'   then lapse.expiry_call(p_target, p_name, p_function, v_types)
    end;

    v_due := lapse.due_function(v_policy);
    v_sources := array[lapse.expiry_step(v_policy, v_what, v_types), lapse.expiry_due(v_policy, v_what, v_types)];
    v_said := format('What lapse.create_expiry was told: %s', jsonb_build_object(
        'policy', jsonb_strip_nulls(to_jsonb(v_policy)), 'index', p_index, 'owner', v_owner,
        'sources', md5(array_to_string(v_sources, ''))));

    -- What is there already: the same, for nothing to do; its former self, to be replaced; or something else.
    select * into v_known from lapse.declared_expiry(p_name);
    for v_found in
        select p.oid, p.oid::regprocedure as name, p.proowner, n.nspname, p.proname, obj_description(p.oid, 'pg_proc') as said
          from pg_proc as p
          join pg_namespace as n on n.oid = p.pronamespace
         where n.nspname = v_schema
           and p.proname in (lapse.generated_name('expire', p_name), lapse.generated_name('due', p_name))
    loop
        if v_known.step is distinct from v_policy.step
           or v_found.oid not in (coalesce(to_regprocedure(v_policy.step || c_step), 0::oid),
                                  coalesce(to_regprocedure(v_due || c_due), 0::oid))
           or not pg_has_role(v_found.proowner, 'USAGE') then
            raise exception using
                errcode = 'LP028',
                message = format('policy %s: there is a function %s already, of role %s', p_name, v_found.name,
                                 v_found.proowner::regrole),
                hint    = case when v_known.declared and to_regprocedure(v_known.step || c_step) is null
                               then format('If its schema was renamed: select lapse.drop_expiry(%L); and declare it again.', p_name)
                               else format('Choose another name for the policy, or, as that role: drop function %s;', v_found.name) end;
        end if;
        if p_replace and v_found.said = v_said and to_regprocedure(v_policy.step || c_step) is not null then
            return;
        end if;
    end loop;

    select r.rolname into v_engine from pg_namespace as n join pg_roles as r on r.oid = n.nspowner where n.nspname = 'lapse';
    for v_found in select s.source, s.name from unnest(v_sources, array[v_policy.step || c_step, v_due || c_due]) as s (source, name) loop
        execute v_found.source;
        execute format('alter function %s owner to %I', v_found.name, v_owner);
        -- Default privileges may have given it to others, and EXECUTE is everybody's from the start.
        for v_hint in
            select distinct case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
              from pg_proc as p
             cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
             where p.oid = to_regprocedure(v_found.name) and a.grantee <> p.proowner
        loop
            execute format('revoke all on function %s from %s', v_found.name, v_hint);
        end loop;
        if v_engine <> v_owner then
            execute format('grant execute on function %s to %I', v_found.name, v_engine);
        end if;
    end loop;
    execute format('comment on function %s is %L', v_policy.step || c_step,
                   format('Step of policy %s, made by lapse.create_expiry. %s', p_name, v_policy.description));
    execute format('comment on function %s is %L', v_due || c_due, v_said);
    perform lapse.enter_expiry(to_regprocedure(v_due || c_due), p_replace);

    begin
        execute format('select from %s(''act''::text, null::timestamptz, null::timestamptz, 0, null::regclass, null::text[])', v_due);
    exception
        when others then
            raise exception using
                errcode = 'LP026',
                message = format('policy %s: rows of table %s can''t be %s: %s', p_name, v_policy.target_table,
                                 case p_action when 'delete' then 'deleted' when 'update' then 'updated' else 'handed on' end, sqlerrm),
                hint    = format('It is tried as role %s, who owns the table.', v_owner);
    end;
    perform lapse.warn_expiry(p_target, v_policy);
    perform lapse.expiry_index(p_target, v_policy, p_index);
end;
$$;

comment on function lapse.create_expiry(
    text, regclass, text, text, text, interval, text, jsonb, text, text[], interval, time, text, integer, interval,
    interval, numeric, bigint, text, text, boolean, boolean) is
    'Let rows of a table lapse: writes the step that deletes, updates or hands on what is due, and makes its policy.';
