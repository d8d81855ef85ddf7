-- lapse.worker_beat: a worker is alive, and this is what it has done since it started.
--
-- In: its name; files done, attempts failed and bytes freed, all in total; whether it keeps
-- the schedule in place of pg_cron; what is wrong with which of its storages, {"name": "what"}, {} when
-- all is well. What is NULL stays as it was. A worker that is not known (any more) is left
-- alone: lapse.worker_hello makes it known. LP001 for troubles that are no such object.

create or replace function lapse.worker_beat(
    p_worker   text,
    p_files    bigint,
    p_failed   bigint,
    p_bytes    bigint,
    p_ticking  boolean,
    p_troubles jsonb default null
)
    returns void
    language plpgsql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_storages text[];
begin
    if jsonb_typeof(p_troubles) <> 'object' or jsonb_path_exists(p_troubles, '$.* ? (@.type() != "string")') then
        raise exception 'the troubles are no object of texts'
            using errcode = 'LP001', hint = 'Give {"public": "the disk is read-only"}, or {} when all is well.';
    end if;

    update lapse.worker as w
       set last_seen_at = clock_timestamp(),
           files_done   = coalesce(p_files, w.files_done),
           files_failed = coalesce(p_failed, w.files_failed),
           bytes_freed  = coalesce(p_bytes, w.bytes_freed),
           ticking      = coalesce(p_ticking, w.ticking),
           troubles     = coalesce(p_troubles, w.troubles)
     where w.id = p_worker
    returning w.storages into v_storages;

    perform lapse.touch_storages(v_storages);
end;
$$;

comment on function lapse.worker_beat(text, bigint, bigint, bigint, boolean, jsonb) is
    'For workers: a heartbeat, with totals since the worker started and what is wrong with its storages.';
