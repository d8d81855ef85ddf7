-- lapse.tick_release: stop being the one worker that ticks.
--
-- Out: true when this session held the lock; false, and nothing happens, when it
-- did not. Called when pg_cron is alive again and when the worker stops.

create or replace function lapse.tick_release()
    returns boolean
    language sql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    select case when lapse.tick_lock_held() then pg_advisory_unlock(1818324340, 0) else false end
$$;

comment on function lapse.tick_release() is
    'Give back the lock of the one worker that ticks; true when this session held it.';
