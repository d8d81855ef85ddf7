-- lapse.drop_policy: forget a policy, its state and the rows that it set aside.
--
-- In: its name. Out: nothing. Raises LP002 for an unknown policy. Its history
-- stays until it is pruned; a run under way is entered there as stopped, and
-- ends within one batch: an advisory lock sees to that, since a run's next batch
-- would often be quicker to the state's row than whoever waits for it. Lock
-- order: advisory lock, state, policy, as in a batch, which holds the first two
-- when it notes a blocked row under the policy.

create or replace function lapse.drop_policy(p_name text)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_state lapse.policy_state;
begin
    perform pg_advisory_xact_lock(1818324341, hashtext(p_name));
    select s.* into v_state from lapse.policy_state as s where s.policy = p_name for update;
    if not found then
        raise exception using
            errcode = 'LP002',
            message = format('there is no policy %s', coalesce(p_name, 'NULL')),
            hint    = 'See lapse.policy_status for the names.';
    end if;

    if v_state.run_id is not null then
        insert into lapse.run_log (run_id, policy, source, status, as_of, started_at, finished_at,
                                   batches, picked, handled, blocked, more, message)
        values (v_state.run_id, p_name, v_state.run_source, 'stopped', v_state.run_as_of,
                v_state.run_started_at, clock_timestamp(), v_state.run_batches, v_state.run_picked,
                v_state.run_handled, v_state.run_blocked, true, 'the policy was dropped');
    end if;
    delete from lapse.policy as p where p.name = p_name;
end;
$$;

comment on function lapse.drop_policy(text) is
    'Drop a policy with its state and its list of blocked rows; its history stays.';
