-- lapse.forget_cron_jobs: forget jobs that lived in another database.
--
-- In: the database where pg_cron lived; NULL for every database but this one. Out:
-- how many records went. Touches no job: pglapse unschedule --cron-dsn removes the
-- jobs and calls this. Call it by hand in a restored copy, whose records name the
-- original's jobs, or when that cron database is gone.

create or replace function lapse.forget_cron_jobs(p_cron_database text default null)
    returns integer
    language sql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    with gone as (
        delete from lapse.cron_job as c
         where case when p_cron_database is null then c.cron_database <> current_database()
                    else c.cron_database = p_cron_database end
        returning 1
    )
    select count(*)::integer from gone
$$;

comment on function lapse.forget_cron_jobs(text) is
    'Forget recorded pg_cron jobs of another database without touching them; returns how many.';
