-- lapse.run_lock_key: what stands for a run in its advisory lock.
--
-- In: a run's number. Out: the second key of the advisory lock (1818324339, key)
-- that a run holds from its beginning to its end, across its commits. A session
-- that dies gives the lock back at once, which is how a lost run is told from a
-- long one. Keys come round again after two thousand million runs.

create or replace function lapse.run_lock_key(p_run_id bigint)
    returns integer
    language sql
    immutable
    strict
    parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select (p_run_id % 2147483647)::integer
$$;

comment on function lapse.run_lock_key(bigint) is
    'The second key of the advisory lock that a run holds; the first is 1818324339.';
