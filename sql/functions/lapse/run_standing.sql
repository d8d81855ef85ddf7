-- lapse.run_standing: is a policy's open run still being worked on?
--
-- In: a policy's state, locked by the caller, so no batch of it is in progress;
-- without the lock the answer is a first guess. Out: 'free' without an open run; 'lost' when the run's advisory lock can be
-- taken, so its session is gone; 'stale' when the session lives but has not
-- served the policy for ten seconds: it is held up in another policy, or a
-- cancelled call left the run behind; else 'busy'. A stale run may be taken
-- over: its number changes, and the old session finds that out at its next batch.

create or replace function lapse.run_standing(p_state lapse.policy_state)
    returns text
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    if p_state.run_id is null then
        return 'free';
    end if;
    if pg_try_advisory_lock(1818324339, lapse.run_lock_key(p_state.run_id)) then
        perform pg_advisory_unlock(1818324339, lapse.run_lock_key(p_state.run_id));
        return 'lost';
    end if;
    if p_state.last_served_at < clock_timestamp() - interval '10 s' then
        return 'stale';
    end if;
    return 'busy';
end;
$$;

comment on function lapse.run_standing(lapse.policy_state) is
    'free, busy, stale (its session is held up elsewhere) or lost (its session is gone).';
