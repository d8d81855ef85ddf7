-- lapse.create_policy: from now on, this lapses.
--
-- In: a name, a step function, a cadence, and what may be left to its default.
-- Out: nothing. Raises LP003 for a name that is taken, otherwise what
-- lapse.check_policy raises. The first run is due at once, or at the first
-- p_at_time from now on. With p_max_fraction the policy has a brake: a run that would take more than that share
-- of its table, and more than p_brake_rows (10,000), takes nothing and asks. Runs with its caller's rights: only the owner of the
-- engine may write to lapse.policy, since steps run with the owner's rights.

create or replace function lapse.create_policy(
    p_name         text,
    p_step         text,
    p_every        interval,
    p_description  text     default '',
    p_at_time      time     default null,
    p_time_zone    text     default 'UTC',
    p_batch_size   integer  default 1000,
    p_max_runtime  interval default '20 s',
    p_lock_timeout interval default '200 ms',
    p_enabled      boolean  default true,
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
    v_policy lapse.policy;
    v_now    timestamptz := clock_timestamp();
    v_slot   timestamptz := v_now;
begin
    v_policy.name         := p_name;
    v_policy.description  := p_description;
    v_policy.step         := p_step;
    v_policy.every        := p_every;
    v_policy.at_time      := p_at_time;
    v_policy.time_zone    := p_time_zone;
    v_policy.batch_size   := p_batch_size;
    v_policy.max_runtime  := p_max_runtime;
    v_policy.lock_timeout := p_lock_timeout;
    v_policy.enabled      := p_enabled;
    v_policy.target_table := p_target;
    v_policy.key_columns  := p_key_columns;
    v_policy.due_column   := p_due_column;
    v_policy.predicate    := p_predicate;
    v_policy.older_than   := p_older_than;
    v_policy.due_zone     := p_due_zone;
    v_policy.action       := p_action;
    v_policy.max_fraction := p_max_fraction;
    v_policy.brake_rows   := coalesce(p_brake_rows, case when p_max_fraction is not null then 10000 end);
    v_policy.created_at   := v_now;
    v_policy.updated_at   := v_now;
    perform lapse.check_policy(v_policy);

    insert into lapse.policy select (v_policy).* on conflict do nothing;
    if not found then
        raise exception using
            errcode = 'LP003',
            message = format('policy %s exists already', p_name),
            hint    = 'Change it with lapse.alter_policy, or drop it first.';
    end if;

    if p_at_time is not null then
        v_slot := lapse.next_slot(interval '1 day', p_at_time, p_time_zone, v_now, v_now);
    end if;
    insert into lapse.policy_state (policy, slot_at, next_run_at, batch_limit)
    values (p_name, v_slot, v_slot, p_batch_size);
    perform lapse.copy_holds(p_name);
end;
$$;

comment on function lapse.create_policy(
    text, text, interval, text, time, text, integer, interval, interval, boolean, text, text[], text, text,
    interval, text, text, numeric, bigint) is
    'Make a policy: which step function to run, how often, and how hard.';
