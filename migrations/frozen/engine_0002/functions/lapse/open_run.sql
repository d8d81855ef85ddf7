-- lapse.open_run: put a run on record and take its lock.
--
-- In: the policy, whose state the caller has locked and found free; who runs it;
-- the cutoff, NULL for now. Out: the run's number. The cutoff is taken once:
-- with a moving one a run might never end. A run whose cutoff is its own
-- beginning is an ordinary one; another cutoff leaves the schedule alone.

create or replace function lapse.open_run(p_policy text, p_source text, p_as_of timestamptz)
    returns bigint
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_run bigint      := nextval('lapse.run_id_seq');
    v_now timestamptz := clock_timestamp();
begin
    perform pg_advisory_lock(1818324339, lapse.run_lock_key(v_run));
    update lapse.policy_state as s
       set run_id           = v_run,
           run_source       = p_source,
           run_pid          = pg_backend_pid(),
           run_as_of        = coalesce(p_as_of, v_now),
           run_started_at   = v_now,
           run_busy         = interval '0',
           run_reached      = '-infinity',
           run_batches      = 0,
           run_picked       = 0,
           run_handled      = 0,
           run_blocked      = 0,
           run_streak       = 0,
           run_streak_since = null,
           run_suspect      = 0,
           last_served_at   = v_now
     where s.policy = p_policy;
    return v_run;
end;
$$;

comment on function lapse.open_run(text, text, timestamptz) is
    'Open a run of a policy whose state is locked and free: its number, holding its advisory lock.';
