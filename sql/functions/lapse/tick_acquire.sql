-- lapse.tick_acquire: become the one worker that ticks.
--
-- Out: true when this session holds the lock now, also when it did before; false
-- when another session holds it; never waits. A session lock and not a row: it
-- goes with its connection, so a worker that is killed hands over by dying. It
-- needs a connection of its own that no transaction pooler stands before.

create or replace function lapse.tick_acquire()
    returns boolean
    language sql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    select case when lapse.tick_lock_held() then true else pg_try_advisory_lock(1818324340, 0) end
$$;

comment on function lapse.tick_acquire() is
    'Take the lock of the one worker that ticks; true when this session holds it. Held until lapse.tick_release or the connection''s end.';
