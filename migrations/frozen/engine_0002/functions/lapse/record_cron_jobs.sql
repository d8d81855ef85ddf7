-- lapse.record_cron_jobs: remember which jobs keep this database's schedule.
--
-- In: the database where pg_cron lives, and the jobs there as a JSON array of
-- {"jobname", "jobid", "schedule", "command"}. Replaces everything recorded before:
-- a cluster has one pg_cron, so jobs recorded in another database of it are gone or
-- never run (pg_cron moved), and a restored copy's are another cluster's. Raises
-- LP001 for an argument that is no such thing, and nothing changes.
-- A downgrade looks here to know what it has to remove.

create or replace function lapse.record_cron_jobs(p_cron_database text, p_jobs jsonb)
    returns void
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if p_cron_database is null or p_cron_database = ''
       or jsonb_typeof(p_jobs) is distinct from 'array'
       or exists (
           select from jsonb_array_elements(case jsonb_typeof(p_jobs) when 'array' then p_jobs end) as e(job)
            where jsonb_typeof(e.job) <> 'object'
               or coalesce(e.job ->> 'jobname', '') = ''
               or (e.job ->> 'jobid') !~ '^\d{1,18}$'
               or num_nulls(e.job ->> 'jobid', e.job ->> 'schedule', e.job ->> 'command') > 0
       )
    then
        raise exception 'these are no pg_cron jobs: %, %',
            coalesce(quote_literal(p_cron_database), 'NULL'), coalesce(left(p_jobs::text, 200), 'NULL')
            using errcode = 'LP001',
                  hint = 'Give a database and a JSON array of {"jobname", "jobid", "schedule", "command"}.';
    end if;

    delete from lapse.cron_job;
    insert into lapse.cron_job (cron_database, jobname, jobid, schedule, command)
    select p_cron_database, j.jobname, j.jobid, j.schedule, j.command
      from jsonb_to_recordset(p_jobs) as j(jobname text, jobid bigint, schedule text, command text);
end;
$$;

comment on function lapse.record_cron_jobs(text, jsonb) is
    'Record the pg_cron jobs that keep this database''s schedule, in place of those recorded before.';
