-- lapse.may_stay: whether this session may stay for its minute.
--
-- In: whether it wants to (NULL: no). Out: whether it may. In a background worker nobody
-- may, since there one long job of pg_cron 1.4 holds up everybody else's.
-- Invoker on purpose: a session sees what kind of process it is, while the
-- engine's owner does not see that of another role's.

create or replace function lapse.may_stay(p_stay boolean)
    returns boolean
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select p_stay is true
       and exists (select from pg_stat_activity as a
                    where a.pid = pg_backend_pid() and a.backend_type = 'client backend')
$$;

comment on function lapse.may_stay(boolean) is
    'Whether a call of lapse.run_due that wants to stay for its minute may: not in a background worker.';
