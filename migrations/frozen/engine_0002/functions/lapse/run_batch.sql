-- lapse.run_batch: one batch of a run, in the caller's transaction.
--
-- In: the run's number. Out: whether to come again; the number of the history's
-- entry if the run failed; whether the whole call should stop (its time is up or
-- it was cancelled). Raises nothing that the step raises: errors are recorded.
--
-- The step runs in a subtransaction that ends with its deferred constraints checked,
-- so whatever it breaks is undone here and not at COMMIT, where nobody could note it.
-- When it fails, half the batch is tried, down to one row; that row was
-- locked by its key beforehand, so its name is known, and it is set aside. Rows
-- that a trigger kept are taken one by one as well. Ten rows set aside without a
-- success between them are a broken step and not bad rows: these are taken back
-- and the run fails. Errors about the state of the server end the turn at once.
-- Where the policy has a brake, the first batch counts before it takes anything.
--
-- Where rows are held, those that were there before the step are there after it, or the batch is undone: whether a cascade,
-- a trigger or a step that did not look has taken one. Rows that would take a held one along are then left out like
-- held ones, and the batch begins anew; where there are none, it is a failure like any other.
--
-- Lock order: the policy's state, the rows, then whatever lapse.blocked_row needs.

create or replace function lapse.run_batch(
    p_run_id   bigint,
    out again  boolean,
    out failed bigint,
    out stop   boolean
)
    language plpgsql
    volatile
    security definer  -- the step runs with the rights of the engine's owner, or its own
    set search_path = pg_catalog, pg_temp
    set row_security = off  -- a policy that hides rows makes the step fail, not see nothing
    set jit = off  -- compiling costs more than a batch
    set timezone = 'UTC'
    set datestyle = 'ISO'
    set intervalstyle = 'postgres'
    set bytea_output = 'hex'
    set extra_float_digits = 1
as $$
declare
    v_state      lapse.policy_state;
    v_locked     lapse.policy_state;
    v_policy     lapse.policy;
    v_began      timestamptz := clock_timestamp();
    v_elapsed    interval;
    v_step       text;
    v_limit      integer;
    v_one        boolean;
    v_key        text;
    v_first      text;
    v_due        timestamptz;
    v_picked     integer;
    v_handled    integer;
    v_log        bigint;
    v_reached    timestamptz;
    v_sqlstate   text;
    v_message    text;
    v_detail     text;
    v_hint       text;
    v_context    text;
    v_error      text;
    v_is_new     boolean;
    v_complete   boolean := false;
    v_failure    boolean := false;
    v_broken     boolean := false;
    v_braked     boolean := false;
    v_due_rows   bigint;
    v_of_rows    bigint;
    v_kept       text[];
    v_lost       text;
begin
    again := false;
    stop := false;

    select s.*
      into v_state
      from lapse.policy_state as s
     where s.run_id = p_run_id and s.run_pid = pg_backend_pid();
    if not found then
        -- Dropped, or taken over while this session was held up.
        perform lapse.release_run_lock(p_run_id);
        return;
    end if;
    -- lapse.drop_policy holds this lock or waits for it; another operator's open transaction may hold the row.
    if pg_try_advisory_xact_lock_shared(1818324341, hashtext(v_state.policy)) then
        select s.*
          into v_locked
          from lapse.policy_state as s
         where s.policy = v_state.policy and s.run_id = p_run_id
           for update skip locked;
    end if;
    if v_locked.policy is null then
        if v_state.run_started_at > v_began - interval '1 hour' then
            perform pg_sleep(0.1);
            again := true;
        else
            perform lapse.release_run_lock(p_run_id);
        end if;
        return;
    end if;
    v_state := v_locked;

    select p.* into v_policy from lapse.policy as p where p.name = v_state.policy;
    if not v_policy.enabled then
        perform lapse.end_run(v_policy.name, 'stopped', true, p_message => 'the policy was paused');
        return;
    end if;

    v_message := lapse.halt_reason();
    if v_message is not null then
        perform lapse.end_run(v_policy.name, 'stopped', true, p_message => v_message);
        return;
    end if;

    v_limit := least(v_state.batch_limit, v_policy.batch_size);
    v_one := v_limit = 1 and v_policy.target_table is not null;
    perform set_config('lock_timeout', ceil(extract(epoch from v_policy.lock_timeout) * 1000)::text, true);

    begin
        v_step := lapse.check_step(v_policy.step);

        if v_state.run_batches = 0 and v_policy.max_fraction < 1 then
            select j.brakes, j.due, j.of_rows
              into v_braked, v_due_rows, v_of_rows
              from lapse.judge_run(v_policy, v_state.run_as_of, coalesce(v_state.released_rows, 0),
                                   v_state.braked_at is not null) as j;
            v_began := clock_timestamp();  -- the batch is not made smaller for what counting took
        end if;

        if v_braked then
            if v_state.braked_at is null then
                v_state.braked_rows := v_due_rows;
                v_state.braked_of := v_of_rows;
            end if;
            v_message := format('%s of %s rows are due, more than %s of the table', v_state.braked_rows,
                                v_state.braked_of, v_policy.max_fraction);
            v_log := lapse.end_run(v_policy.name, 'braked', true, 'LP015', v_message,
                                   p_hint => format('Nothing was taken. Look at what is due; if it may go: '
                                                    'select lapse.release_brake(%L)', v_policy.name));
            update lapse.policy_state as s
               set braked_at   = coalesce(s.braked_at, v_began),
                   braked_rows = v_state.braked_rows,
                   braked_of   = v_state.braked_of
             where s.policy = v_policy.name;
            failed := v_log;  -- said once, and not each time that it is looked at
            return;
        end if;
        v_state.braked_at := null;

        if v_one then
            select d.key, d.due
              into v_key, v_due
              from lapse.due_rows(v_policy, v_state.run_reached, v_state.run_as_of, 1, true) as d;
        end if;

        if exists (select from lapse.hold) then
            if v_state.run_batches = 0 then
                perform lapse.note_hold_names();
            end if;
            v_kept := array(select lapse.kept_rows(p_policy => v_policy));
        end if;

        begin
            execute format('select p.picked, p.handled, p.reached from %s($1, $2, $3) as p', v_step)
               into v_picked, v_handled, v_reached
              using v_limit, v_state.run_as_of, v_state.run_reached;

            if v_picked is null or v_handled is null
               or v_picked not between 0 and v_limit
               or v_handled not between 0 and v_picked
               or (v_picked > 0 and (v_reached is null or v_reached > v_state.run_as_of
                                     or v_reached < v_state.run_reached)) then
                raise exception using
                    errcode = 'LP004',
                    message = format('step %s answered picked %s, handled %s, reached %s for a limit of %s',
                                     v_policy.step, coalesce(v_picked::text, 'NULL'),
                                     coalesce(v_handled::text, 'NULL'), coalesce(v_reached::text, 'NULL'), v_limit),
                    hint    = 'It must answer 0 <= handled <= picked <= limit, and the due time reached, between the resume point and the cutoff.';
            end if;
            set constraints all immediate;

            if v_kept <> '{}' then
                select k.row into v_lost
                  from unnest(v_kept) as k (row)
                 where k.row not in (select lapse.kept_rows(p_relations => array(
                                         select distinct split_part(u.row, ' ', 1)::oid from unnest(v_kept) as u (row))))
                 limit 1;
                if found then
                    raise exception using
                        errcode = 'LP016',
                        message = format('row %s of %s is held, and would be gone', substr(v_lost, position(' ' in v_lost) + 1),
                                         split_part(v_lost, ' ', 1)::oid::regclass),
                        hint    = 'It went along with another row, or the step did not look for it. Nothing was done.';
                end if;
            end if;
        exception
            when query_canceled or assert_failure or others then
                get stacked diagnostics
                    v_sqlstate = returned_sqlstate,
                    v_message  = message_text,
                    v_detail   = pg_exception_detail,
                    v_hint     = pg_exception_hint,
                    v_context  = pg_exception_context;
                v_picked := 0;
                v_handled := 0;
        end;
    exception
        when query_canceled or assert_failure or others then
            -- The step may not be run, or the query that names its rows failed: nothing to set aside.
            get stacked diagnostics
                v_sqlstate = returned_sqlstate,
                v_message  = message_text,
                v_detail   = pg_exception_detail,
                v_hint     = pg_exception_hint,
                v_context  = pg_exception_context;
            v_picked := 0;
            v_handled := 0;
            v_key := null;
            v_failure := true;
    end;
    v_elapsed := clock_timestamp() - v_began;

    if v_lost is not null and v_policy.target_table is not null then
        -- lapse.hold has this lock while it waits for the state that is locked here, so it is not waited for.
        if pg_try_advisory_xact_lock(1818324343, 0) then
            begin
                again := lapse.copy_holds(v_policy.name, true) > 0;
            exception
                when others then
                    null;  -- the batch has failed, and says why
            end;
        else
            perform pg_sleep(0.1);
            again := true;
        end if;

        if again then
            v_elapsed := clock_timestamp() - v_began;
            update lapse.policy_state as s
               set last_served_at = v_began + v_elapsed, run_busy = s.run_busy + v_elapsed
             where s.policy = v_policy.name;
            if v_state.run_busy + v_elapsed >= v_policy.max_runtime or lapse.statement_time_left() <= interval '0' then
                again := false;
                perform lapse.end_run(v_policy.name, 'ok', true);
            end if;
            return;
        end if;
    end if;

    -- What this batch means for the next one.
    if v_sqlstate is not null then
        if v_failure
           or left(v_sqlstate, 2) in ('25', '40', '53', '57', '58')
           or v_sqlstate in ('55P03', '42501', 'LP004')
           or v_policy.target_table is null then
            v_failure := true;
            stop := v_sqlstate = '57014';
            -- A batch that was too much for the server, or for its time, is tried smaller.
            v_state.batch_limit := case when left(v_sqlstate, 2) in ('40', '53', '57')
                                        then greatest(v_limit / 2, 1) else v_limit end;
        elsif v_one and v_key is null then
            v_failure := true;
            v_broken := true;  -- no row is due, and still it fails
        elsif not v_one then
            v_state.run_suspect := v_limit;
            v_state.batch_limit := greatest(v_limit / 2, 1);
        else
            v_error := v_message;
            v_state.run_suspect := 0;
        end if;
    elsif v_picked > v_handled then
        if v_policy.target_table is null then
            -- Without names of rows there is nothing to set aside; go on only while something moves.
            v_failure := v_handled = 0 or v_picked < v_limit;
            v_message := format('%s of %s picked rows were not changed', v_picked - v_handled, v_picked);
            v_hint := 'A trigger or a rule kept them; the step picks them again and again.';
        elsif v_one then
            v_error := 'a trigger or rule kept the row';
            v_state.run_suspect := greatest(v_state.run_suspect - 1, 0);
        else
            -- The others are gone, so these are the next ones: meet them one by one.
            v_state.run_suspect := v_picked - v_handled;
            v_state.batch_limit := 1;
        end if;
    else
        v_state.run_reached := coalesce(v_reached, v_state.run_reached);
        v_state.run_suspect := greatest(v_state.run_suspect - v_handled, 0);
        v_complete := v_picked < v_limit;
        v_state.batch_limit := case
            when v_state.run_suspect > 0                                 then least(v_limit, (v_state.run_suspect + 1) / 2)
            when v_elapsed > interval '400 ms'                           then greatest(v_limit / 2, 1)
            when v_elapsed < interval '100 ms' and not v_complete        then least(v_limit * 2, v_policy.batch_size)
            else v_limit
        end;
    end if;

    if v_handled > 0 then
        v_state.run_streak := 0;
        v_state.run_streak_since := null;
    end if;

    if v_error is not null and not v_failure and v_key is not null then
        -- A row locked elsewhere at first and free when the step came stood before this one: the
        -- next batch will name it.
        select d.key
          into v_first
          from lapse.due_rows(v_policy, v_state.run_reached, v_state.run_as_of, 1, true) as d;
        if v_first is distinct from v_key then
            v_error := null;
        end if;
    end if;

    if v_error is not null and not v_failure then
        if v_key is null then
            v_failure := true;  -- the row that it stumbled over is not among the declared ones
            v_message := coalesce(v_message, v_error);
            v_hint := coalesce(v_hint, 'Does the step take the rows that the policy''s target and predicate name?');
        elsif octet_length(v_key) > 2000 then
            v_failure := true;  -- no index entry has room for it
            v_message := format('a row whose key is too long to set it aside, %s..., has: %s', left(v_key, 100), v_error);
            v_hint := 'Declare p_key_columns with at most 2,000 bytes of text, as lapse.blocked_row keeps them.';
        else
            v_is_new := lapse.set_aside(v_state, v_key, v_due, v_sqlstate, v_error);
            if v_is_new is null then
                v_failure := true;
                v_message := format('1,000 rows are set aside already; the next one, %s, has: %s', v_key, v_error);
                v_hint := 'See lapse.blocked_row; the rows there need a hand.';
            else
                v_state.run_blocked := v_state.run_blocked + 1;
                if v_is_new then
                    v_state.run_streak := v_state.run_streak + 1;
                    v_state.run_streak_since := coalesce(v_state.run_streak_since, v_began);
                end if;
            end if;
        end if;
    end if;

    v_state.run_picked := v_state.run_picked + v_picked;
    v_state.run_handled := v_state.run_handled + v_handled;

    -- Signs of a broken step: ten rows in a row; a failure without any row; or, at the end, nothing done
    -- but failures, the last of them about the step's own text or rights.
    if v_state.run_streak >= 10
       or (v_complete and v_state.run_handled = 0 and v_state.run_streak > 0) then
        select b.sqlstate, b.error
          into v_sqlstate, v_message
          from lapse.blocked_row as b
         where b.policy = v_policy.name and b.run_id = p_run_id
         order by b.touched_at desc
         limit 1;
        v_broken := v_state.run_streak >= 10 or v_sqlstate like '42%';
    end if;
    if v_broken and v_state.run_streak > 0 then
        delete from lapse.blocked_row as b
         where b.policy = v_policy.name
           and b.run_id = p_run_id
           and b.attempts = 1
           and b.hold_key is null
           and b.touched_at >= v_state.run_streak_since;
        v_failure := true;
        v_state.run_blocked := v_state.run_blocked - v_state.run_streak;
        v_detail := format('%s rows failed in a row, the last one with this; none of them is set aside.',
                           v_state.run_streak);
    end if;

    update lapse.policy_state as s
       set last_served_at   = v_began + v_elapsed,
           batch_limit      = v_state.batch_limit,
           run_busy         = s.run_busy + v_elapsed,
           run_reached      = v_state.run_reached,
           run_batches      = s.run_batches + 1,
           run_picked       = v_state.run_picked,
           run_handled      = v_state.run_handled,
           run_blocked      = v_state.run_blocked,
           run_streak       = v_state.run_streak,
           run_streak_since = v_state.run_streak_since,
           run_suspect      = v_state.run_suspect,
           braked_at        = v_state.braked_at,
           braked_rows      = case when v_state.braked_at is not null then s.braked_rows end,
           braked_of        = case when v_state.braked_at is not null then s.braked_of end,
           released_rows    = case when not v_complete and s.released_rows is not null
                                   then greatest(s.released_rows - v_picked, 0) end
     where s.policy = v_policy.name;

    if v_failure then
        failed := lapse.end_run(v_policy.name, 'failed', true, v_sqlstate, v_message,
                                nullif(v_detail, ''), nullif(v_hint, ''), v_context);
    elsif v_complete then
        perform lapse.end_run(v_policy.name, 'ok');
    elsif v_state.run_busy + v_elapsed >= v_policy.max_runtime
          or lapse.statement_time_left() <= interval '0' then
        perform lapse.end_run(v_policy.name, 'ok', true);
    else
        again := true;
    end if;
end;
$$;

comment on function lapse.run_batch(bigint) is
    'One batch of an open run: whether to come again, the history''s entry of a failure, whether to stop the whole call.';
