-- lapse.end_run: close a policy's open run, whatever came of it.
--
-- In: the policy, whose state the caller has locked; ok, failed, lost, stopped or braked;
-- whether work is left; the error, if any. Out: the number of the entry in
-- lapse.run_log, NULL for an empty run, which leaves none. Sets the next run: the
-- next slot of the grid after this run's beginning, so slots missed meanwhile
-- run once; that slot for a braked run, which is entered once and not each time that it is looked at; at once while
-- work is left; after a failure 15 s, 30 s, ... 1 hour. A
-- lost run is tried again at once with half the batch, in case it was too much for
-- the server; a second one in a row backs off. Runs with a cutoff of their own
-- (run_as_of) leave the schedule as it is.

create or replace function lapse.end_run(
    p_policy   text,
    p_status   text,
    p_more     boolean default false,
    p_sqlstate text    default null,
    p_message  text    default null,
    p_detail   text    default null,
    p_hint     text    default null,
    p_context  text    default null
)
    returns bigint
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_state    lapse.policy_state;
    v_policy   lapse.policy;
    v_now      timestamptz := clock_timestamp();
    v_log      bigint;
    v_failures integer;
    v_backoff  interval;
begin
    select s.* into v_state from lapse.policy_state as s where s.policy = p_policy;
    select p.* into v_policy from lapse.policy as p where p.name = p_policy;

    if p_status not in ('ok', 'braked') or (p_status = 'braked' and v_state.braked_at is null)
       or (p_status = 'ok' and p_more) or v_state.run_picked > 0 or v_state.run_blocked > 0 then
        insert into lapse.run_log (run_id, policy, source, status, as_of, started_at, finished_at, batches,
                                   picked, handled, blocked, more, sqlstate, message, detail, hint, context)
        values (v_state.run_id, p_policy, v_state.run_source, p_status, v_state.run_as_of,
                v_state.run_started_at, v_now, v_state.run_batches, v_state.run_picked, v_state.run_handled,
                v_state.run_blocked, p_more, p_sqlstate, p_message, p_detail, p_hint, p_context)
        returning id into v_log;
    end if;

    if p_status = 'ok' and not p_more then
        -- What was up for another try and not set aside again is handled, or gone.
        delete from lapse.blocked_row as b
         where b.policy = p_policy
           and b.retry_at <= v_state.run_as_of
           and b.run_id <> v_state.run_id;
    end if;

    v_failures := case when p_status in ('failed', 'lost') then v_state.consecutive_failures + 1
                       when p_status = 'ok'                then 0
                       else v_state.consecutive_failures
                  end;
    v_backoff := least(interval '1 hour',
                       interval '15 s' * power(2, least(greatest(v_failures - 1, 0), 10)));

    update lapse.policy_state as s
       set batch_limit      = case when p_status = 'lost' then greatest(s.batch_limit / 2, 1)
                                   else s.batch_limit end,
           run_id           = null,
           run_source       = null,
           run_pid          = null,
           run_as_of        = null,
           run_started_at   = null,
           run_busy         = null,
           run_reached      = null,
           run_batches      = null,
           run_picked       = null,
           run_handled      = null,
           run_blocked      = null,
           run_streak       = null,
           run_streak_since = null,
           run_suspect      = null,
           last_run_at      = v_now,
           last_status      = p_status,
           last_rows        = v_state.run_handled,
           last_duration    = v_now - v_state.run_started_at,
           last_error       = case when p_status in ('failed', 'lost') then concat_ws(': ', p_sqlstate, p_message)
                                   when p_status = 'braked' then p_message end
     where s.policy = p_policy;

    if v_state.run_as_of = v_state.run_started_at then
        update lapse.policy_state as s
           set slot_at              = n.slot,
               next_run_at          = case when p_status = 'failed' or (p_status = 'lost' and v_failures > 1)
                                           then v_now + v_backoff
                                           when p_status = 'braked' then n.slot
                                           when p_more or p_status <> 'ok' then v_now
                                           else n.slot
                                      end,
               consecutive_failures = v_failures
          from (select lapse.next_slot(v_policy.every, v_policy.at_time, v_policy.time_zone,
                                       v_state.slot_at, v_state.run_started_at) as slot) as n
         where s.policy = p_policy;
    end if;

    if v_state.run_pid = pg_backend_pid() then
        perform lapse.release_run_lock(v_state.run_id);
    end if;
    return v_log;
end;
$$;

comment on function lapse.end_run(text, text, boolean, text, text, text, text, text) is
    'Close a policy''s open run: history, state, next run, advisory lock; the number of the history''s entry.';
