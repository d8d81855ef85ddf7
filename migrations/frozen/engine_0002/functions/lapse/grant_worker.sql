-- lapse.grant_worker: what a worker's role needs, and no more.
--
-- In: the role. Errors as of lapse.grant_routines. It may exchange files, sweep for
-- orphans, send heartbeats and, where pg_cron doesn't, keep the schedule. It has no right on any table or view.

create or replace function lapse.grant_worker(p_role name)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform lapse.grant_routines(p_role, array[
        'api_version', 'worker_hello', 'worker_beat', 'worker_bye', 'exchange_files',
        'exchange_files_packed', 'renew_files', 'storage_marker', 'tick_wanted', 'tick_acquire', 'tick_release',
        'unknown_files', 'listed_files', 'enqueue_orphans', 'sweep_begin', 'sweep_end', 'halt_reason']);
    perform lapse.grant_runner(p_role);
end;
$$;

comment on function lapse.grant_worker(name) is
    'Let a worker''s role delete files and keep the schedule; no table access at all.';
