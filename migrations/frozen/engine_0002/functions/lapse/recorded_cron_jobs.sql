-- lapse.recorded_cron_jobs: which jobs keep this database's schedule, as recorded.
--
-- Out: the rows of lapse.cron_job. For those who schedule from another database
-- and have no right on the table.

create or replace function lapse.recorded_cron_jobs()
    returns setof lapse.cron_job
    language sql
    stable
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    select c.* from lapse.cron_job as c order by c.cron_database, c.jobname
$$;

comment on function lapse.recorded_cron_jobs() is
    'The pg_cron jobs recorded as keeping this database''s schedule.';
