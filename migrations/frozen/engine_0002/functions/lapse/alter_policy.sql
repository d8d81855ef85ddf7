-- lapse.alter_policy: change what is given, keep the rest.
--
-- In: a policy's name and new values; NULL keeps a value. Out: nothing. Raises
-- LP002 for an unknown policy, otherwise what lapse.check_policy raises. A run
-- under way uses the new values from its next batch on. A new cadence starts a
-- new time grid, as creation does; a cadence of less than a day given without a
-- time of day drops the one there was. To take a predicate away, give 'true'; to take the brake off, a fraction
-- of 1. Which rows a declared policy takes stands in its step, too, so only lapse.create_expiry changes that (LP001).
-- A policy that is braked is judged anew by another fraction or number of rows.
-- Only pausing is not checked: a policy whose step or table is gone must stop, too.

create or replace function lapse.alter_policy(
    p_name         text,
    p_step         text     default null,
    p_every        interval default null,
    p_description  text     default null,
    p_at_time      time     default null,
    p_time_zone    text     default null,
    p_batch_size   integer  default null,
    p_max_runtime  interval default null,
    p_lock_timeout interval default null,
    p_enabled      boolean  default null,
    p_target       text     default null,
    p_key_columns  text[]   default null,
    p_due_column   text     default null,
    p_predicate    text     default null,
    p_older_than   interval default null,
    p_due_zone     text     default null,
    p_action       text     default null,
    p_max_fraction numeric  default null,
    p_brake_rows   bigint   default null
)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_old  lapse.policy;
    v_new  lapse.policy;
    v_off  lapse.policy;
    v_now  timestamptz := clock_timestamp();
    v_slot timestamptz := v_now;
begin
    if exists (select from lapse.policy as p
                where p.name = p_name
                  and (coalesce(p_target, p.target_table), coalesce(p_key_columns, p.key_columns))
                      is distinct from (p.target_table, p.key_columns)) then
        perform pg_advisory_xact_lock(1818324343, 0);  -- before the policy's state, as in lapse.hold: see lapse.copy_holds
    end if;
    select p.* into v_old from lapse.policy as p where p.name = p_name for no key update;
    if not found then
        raise exception using
            errcode = 'LP002',
            message = format('there is no policy %s', coalesce(p_name, 'NULL')),
            hint    = 'See lapse.policy_status for the names.';
    end if;

    if v_old.action is not null and p_action is null
       and num_nonnulls(p_step, p_target, p_key_columns, p_due_column, p_predicate, p_older_than, p_due_zone) > 0 then
        raise exception using
            errcode = 'LP001',
            message = format('the step of policy %s is generated and would not follow', p_name),
            hint    = 'Which rows it takes is changed by lapse.create_expiry(..., p_replace => true).';
    end if;

    v_new := v_old;
    v_new.step         := coalesce(p_step, v_old.step);
    v_new.every        := coalesce(p_every, v_old.every);
    v_new.description  := coalesce(p_description, v_old.description);
    v_new.at_time      := coalesce(p_at_time, v_old.at_time);
    v_new.time_zone    := coalesce(p_time_zone, v_old.time_zone);
    v_new.batch_size   := coalesce(p_batch_size, v_old.batch_size);
    v_new.max_runtime  := coalesce(p_max_runtime, v_old.max_runtime);
    v_new.lock_timeout := coalesce(p_lock_timeout, v_old.lock_timeout);
    v_new.enabled      := coalesce(p_enabled, v_old.enabled);
    v_new.target_table := coalesce(p_target, v_old.target_table);
    v_new.key_columns  := coalesce(p_key_columns, v_old.key_columns);
    v_new.due_column   := coalesce(p_due_column, v_old.due_column);
    v_new.predicate    := coalesce(p_predicate, v_old.predicate);
    v_new.older_than   := coalesce(p_older_than, v_old.older_than);
    v_new.due_zone     := coalesce(p_due_zone, v_old.due_zone);
    v_new.action       := coalesce(p_action, v_old.action);
    v_new.max_fraction := coalesce(p_max_fraction, v_old.max_fraction);
    v_new.brake_rows   := coalesce(p_brake_rows, v_old.brake_rows, case when v_new.max_fraction is not null then 10000 end);
    v_new.updated_at   := v_now;
    if p_at_time is null and isfinite(p_every) and p_every < interval '1 day' then
        v_new.at_time := null;
    end if;
    v_off := v_old;
    v_off.enabled    := false;
    v_off.updated_at := v_now;
    if v_new is distinct from v_off then
        perform lapse.check_policy(v_new);
    end if;

    update lapse.policy as p
       set step         = v_new.step,
           every        = v_new.every,
           description  = v_new.description,
           at_time      = v_new.at_time,
           time_zone    = v_new.time_zone,
           batch_size   = v_new.batch_size,
           max_runtime  = v_new.max_runtime,
           lock_timeout = v_new.lock_timeout,
           enabled      = v_new.enabled,
           target_table = v_new.target_table,
           key_columns  = v_new.key_columns,
           due_column   = v_new.due_column,
           predicate    = v_new.predicate,
           older_than   = v_new.older_than,
           due_zone     = v_new.due_zone,
           action       = v_new.action,
           max_fraction = v_new.max_fraction,
           brake_rows   = v_new.brake_rows,
           updated_at   = v_new.updated_at
     where p.name = p_name;

    if (v_new.every, v_new.at_time, v_new.time_zone)
       is distinct from (v_old.every, v_old.at_time, v_old.time_zone) then
        if v_new.at_time is not null then
            v_slot := lapse.next_slot(interval '1 day', v_new.at_time, v_new.time_zone, v_now, v_now);
        end if;
        update lapse.policy_state as s
           set slot_at     = v_slot,
               next_run_at = v_slot
         where s.policy = p_name;
    end if;

    if (v_new.target_table, v_new.key_columns) is distinct from (v_old.target_table, v_old.key_columns) then
        delete from lapse.blocked_row as b where b.policy = p_name and b.hold_key is not null;
        perform lapse.copy_holds(p_name);
    end if;

    if (v_new.max_fraction, v_new.brake_rows) is distinct from (v_old.max_fraction, v_old.brake_rows) then
        update lapse.policy_state as s
           set braked_at     = null,
               braked_rows   = null,
               braked_of     = null,
               released_rows = null,
               next_run_at   = least(s.next_run_at, case when s.braked_at is not null then v_now end)
         where s.policy = p_name;
    end if;
end;
$$;

comment on function lapse.alter_policy(
    text, text, interval, text, time, text, integer, interval, interval, boolean, text, text[], text, text,
    interval, text, text, numeric, bigint) is
    'Change a policy; NULL keeps a value. A run under way follows with its next batch.';
