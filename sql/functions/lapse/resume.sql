-- lapse.resume: take a paused policy up again.
--
-- In: its name. Out: nothing; resuming a policy that is not paused only forgets
-- its backoff. Raises LP002 for an unknown policy. Slots missed meanwhile are
-- made up for by one run, which the next tick begins.

create or replace function lapse.resume(p_name text)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform lapse.alter_policy(p_name, p_enabled => true);
    update lapse.policy_state as s
       set next_run_at = least(s.next_run_at, s.slot_at)
     where s.policy = p_name;
end;
$$;

comment on function lapse.resume(text) is
    'Resume a paused policy: slots missed meanwhile are made up for by one run.';
