-- lapse.sweep_end: a sweep of a storage has ended, and this is what it found.
--
-- In: the storage and an object with files, orphans, bytes, queued, and stopped (why, where it
-- stopped by itself). An unknown storage is left alone.

create or replace function lapse.sweep_end(p_storage text, p_result jsonb)
    returns void
    language sql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
as $$
    update lapse.storage as s
       set sweep_ended_at = clock_timestamp(), sweep_result = p_result
     where s.name = p_storage
$$;

comment on function lapse.sweep_end(text, jsonb) is
    'For workers: say what a sweep of a storage found.';
