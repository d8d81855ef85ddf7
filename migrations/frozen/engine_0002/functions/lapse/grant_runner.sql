-- lapse.grant_runner: what a role needs to run policies, by hand or as pg_cron's job.
--
-- In: the role. Errors as of lapse.grant_routines. lapse.run and lapse.run_due run with the
-- caller's rights, since they commit; what they call has the engine owner's. A runner can't
-- make, change or pause policies.

create or replace function lapse.grant_runner(p_role name)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform lapse.grant_routines(p_role, array[
        'run', 'run_due', 'begin_run', 'may_stay', 'begin_tick', 'next_due', 'run_batch', 'leave_runs',
        'raise_failures', 'tell_run']);
end;
$$;

comment on function lapse.grant_runner(name) is
    'Let a role run policies: lapse.run and lapse.run_due.';
