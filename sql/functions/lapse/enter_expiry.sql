-- lapse.enter_expiry: puts a policy that was declared into lapse.policy.
--
-- In: the function that names the policy's due rows, as lapse.create_expiry made it; whether a policy that is there may be
-- replaced. Out: nothing. It trusts no argument and can't see who calls: what the policy is stands in that function's comment, which
-- only the owner of the function can have written, and it counts only if that was done in this very transaction, and if the
-- function and the step beside it belong to the owner of the table and run with his rights. So nobody can have somebody else's
-- policy entered again, say to undo what an operator has changed or paused since. Raises LP022 where something of this
-- does not hold, LP003 for a name that another policy has, and what lapse.check_policy raises.
--
-- The owner of the table needs a few functions of the engine for his step to run; they are granted to him here.

create or replace function lapse.enter_expiry(p_due regprocedure, p_replace boolean)
    returns void
    language plpgsql
    volatile
    security definer  -- authors have no right on lapse.policy
    set search_path = pg_catalog, pg_temp
as $$
declare
    c_arguments constant text := '(integer, timestamp with time zone, timestamp with time zone)';
    v_due    record;
    v_spec   jsonb;
    v_policy lapse.policy;
    v_old    lapse.policy;
    v_target oid;
    v_other  boolean;
begin
    select p.proowner, p.proname, p.prosecdef, n.nspname, o.rolname as owner, d.description as said,
           exists (select from pg_locks as l
                    where l.locktype = 'transactionid' and l.pid = pg_backend_pid() and l.granted
                      and l.transactionid = d.xmin) as just_said
      into v_due
      from pg_proc as p
      join pg_namespace as n on n.oid = p.pronamespace
      join pg_roles as o on o.oid = p.proowner
      join pg_description as d on d.classoid = 'pg_proc'::regclass and d.objoid = p.oid and d.objsubid = 0
     where p.oid = p_due;
    v_spec := substring(v_due.said from '\{.*\}')::jsonb;
    v_policy := jsonb_populate_record(null::lapse.policy, v_spec -> 'policy');
    v_target := to_regclass(lapse.quoted_name(v_policy.target_table));

    if v_spec is null
       or v_policy.action is null
       or not v_due.just_said
       or v_due.prosecdef is not true
       or v_due.proname <> lapse.generated_name('due', v_policy.name)
       or v_policy.step is distinct from format('%I.%I', v_due.nspname, lapse.generated_name('expire', v_policy.name))
       or not exists (select from pg_class as c
                       where c.oid = v_target and c.relowner = v_due.proowner and c.relkind in ('r', 'p'))
       or not exists (select from pg_proc as s
                       where s.oid = to_regprocedure(v_policy.step || c_arguments)
                         and s.prosecdef and s.proowner = v_due.proowner) then
        raise exception using
            errcode = 'LP022',
            message = format('%s is no function that lapse.create_expiry has made for a table of the same owner', p_due),
            hint    = 'Call lapse.create_expiry as the owner of the table.';
    end if;
    perform lapse.grant_step(v_due.owner);

    select p.* into v_old from lapse.policy as p where p.name = v_policy.name for no key update;
    -- A table that was renamed is still the same one.
    v_other := v_old.step <> v_policy.step
               or (v_old.target_table <> v_policy.target_table
                   and exists (select from pg_class as c
                                 join pg_namespace as n on n.oid = c.relnamespace
                                where format('%I.%I', n.nspname, c.relname) = v_old.target_table));
    if v_old.name is not null and (p_replace is not true or v_old.action is null or v_other) then
        raise exception using
            errcode = 'LP003',
            message = format('policy %s exists already%s', v_policy.name,
                             case when v_old.action is null then ', with a step written by hand'
                                  when v_other then format(', for table %s', v_old.target_table) end),
            hint    = case when v_old.action is not null and not v_other
                           then 'To change it, add p_replace => true.'
                           else 'Choose another name, or drop that policy first.' end;
    end if;

    if v_old.name is null then
        perform lapse.create_policy(
            v_policy.name, v_policy.step, v_policy.every, v_policy.description,
            p_at_time => v_policy.at_time, p_time_zone => v_policy.time_zone, p_batch_size => v_policy.batch_size,
            p_max_runtime => v_policy.max_runtime, p_lock_timeout => v_policy.lock_timeout,
            p_enabled => coalesce(v_policy.enabled, true), p_target => v_policy.target_table,
            p_key_columns => v_policy.key_columns, p_due_column => v_policy.due_column, p_predicate => v_policy.predicate,
            p_older_than => v_policy.older_than, p_due_zone => v_policy.due_zone, p_action => v_policy.action,
            p_max_fraction => v_policy.max_fraction, p_brake_rows => v_policy.brake_rows);
    else
        -- What alter_policy can't take away, since NULL keeps a value there.
        update lapse.policy as p
           set predicate    = v_policy.predicate,
               target_table = v_policy.target_table,
               older_than   = v_policy.older_than,
               due_zone     = v_policy.due_zone,
               max_fraction = v_policy.max_fraction,
               brake_rows   = v_policy.brake_rows,
               at_time      = case when v_policy.at_time is null then null else p.at_time end
         where p.name = v_policy.name;
        perform lapse.alter_policy(
            v_policy.name, p_every => v_policy.every, p_description => v_policy.description,
            p_at_time => v_policy.at_time, p_time_zone => v_policy.time_zone, p_batch_size => v_policy.batch_size,
            p_max_runtime => v_policy.max_runtime, p_lock_timeout => v_policy.lock_timeout,
            p_enabled => v_policy.enabled, p_key_columns => v_policy.key_columns,
            p_due_column => v_policy.due_column, p_action => v_policy.action);
        if v_old.target_table <> v_policy.target_table then
            delete from lapse.blocked_row as b where b.policy = v_policy.name and b.hold_key is not null;
            perform lapse.copy_holds(v_policy.name);
        end if;
        if v_old.key_columns is distinct from v_policy.key_columns then
            delete from lapse.blocked_row as b where b.policy = v_policy.name and isfinite(b.retry_at);
        end if;
    end if;
end;
$$;

comment on function lapse.enter_expiry(regprocedure, boolean) is
    'Internal: enter or change the policy that a function made by lapse.create_expiry declares.';
