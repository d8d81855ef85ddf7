-- lapse.worker_beat: a worker is alive, and this is what it has done since it started.
--
-- In: its name; files done, attempts failed and bytes freed, all in total; whether it keeps
-- the schedule in place of pg_cron. A worker that is not known (any more) is left alone:
-- lapse.worker_hello makes it known.

create or replace function lapse.worker_beat(
    p_worker  text,
    p_files   bigint,
    p_failed  bigint,
    p_bytes   bigint,
    p_ticking boolean
)
    returns void
    language sql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
as $$
    update lapse.worker as w
       set last_seen_at = clock_timestamp(),
           files_done   = coalesce(p_files, w.files_done),
           files_failed = coalesce(p_failed, w.files_failed),
           bytes_freed  = coalesce(p_bytes, w.bytes_freed),
           ticking      = coalesce(p_ticking, w.ticking)
     where w.id = p_worker
$$;

comment on function lapse.worker_beat(text, bigint, bigint, bigint, boolean) is
    'For workers: a heartbeat, with totals since the worker started.';
