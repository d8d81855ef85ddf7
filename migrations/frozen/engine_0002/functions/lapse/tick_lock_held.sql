-- lapse.tick_lock_held: whether this session is the one that ticks.
--
-- Out: true while it holds the lock that lapse.tick_acquire takes. Session locks
-- count how often they were taken, and releasing one that is not held warns:
-- asking first keeps tick_acquire and tick_release callable again and again.
-- The lock's class is the runs' class plus one, so that no run id can meet it.

create or replace function lapse.tick_lock_held()
    returns boolean
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from pg_locks as l
         where l.locktype = 'advisory'
           and l.classid = 1818324340
           and l.objid = 0
           and l.objsubid = 2
           and l.pid = pg_backend_pid()
           and l.granted
    )
$$;

comment on function lapse.tick_lock_held() is
    'True while this session holds the lock of the one worker that ticks.';
