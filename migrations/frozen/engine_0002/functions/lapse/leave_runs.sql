-- lapse.leave_runs: close whatever runs this session has open.
--
-- In: ok at the end of lapse.run_due, when time is up and work is left; lost at
-- the beginning of a call, for what a cancelled call of the same session left
-- behind (or a dead process of the same number). Out: nothing. A policy whose
-- state is locked elsewhere is passed over: without its lock the next call
-- finds that run lost.

create or replace function lapse.leave_runs(p_status text)
    returns void
    language plpgsql
    volatile
    security definer  -- whoever may tick needs no right on the tables
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_policy text;
begin
    for v_policy in
        select s.policy
          from lapse.policy_state as s
         where s.run_pid = pg_backend_pid()
         order by s.policy
           for update skip locked
    loop
        if p_status = 'ok' then
            perform lapse.end_run(v_policy, 'ok', true);
        else
            perform lapse.end_run(v_policy, 'lost', true,
                                  p_message => 'the call that ran it was cut off');
        end if;
    end loop;
    perform lapse.release_run_lock(null);
end;
$$;

comment on function lapse.leave_runs(text) is
    'Close this session''s open runs, as ok with work left, or as lost; used by lapse.run and lapse.run_due.';
