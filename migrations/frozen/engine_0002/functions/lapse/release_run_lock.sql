-- lapse.release_run_lock: let go of a run's advisory lock, if this session holds it.
--
-- In: a run's number; NULL for every run's. Out: how many locks were let go.
-- pg_locks is asked first, since unlocking what is not held warns the caller.

create or replace function lapse.release_run_lock(p_run_id bigint)
    returns bigint
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    select count(pg_advisory_unlock(1818324339, l.key))
      from (select k.objid::bigint::integer as key
              from pg_locks as k
             where k.locktype = 'advisory'
               and k.database = (select d.oid from pg_database as d where d.datname = current_database())
               and k.classid = 1818324339
               and k.objsubid = 2
               and k.pid = pg_backend_pid()
               and k.granted) as l
     where p_run_id is null or l.key = lapse.run_lock_key(p_run_id)
$$;

comment on function lapse.release_run_lock(bigint) is
    'Release the advisory lock of one run, or of all, as far as this session holds them.';
