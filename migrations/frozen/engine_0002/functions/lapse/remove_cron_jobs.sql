-- lapse.remove_cron_jobs: take our jobs out of this database's pg_cron.
--
-- In: the ids of jobs to keep. Out: how many went. Ours are jobs for this database
-- with our names that call lapse.run_due or are recorded; and recorded ones that
-- this role can't see, since pg_cron shows a role its own jobs only: those may be a
-- former owner's. A number alone proves nothing (a restored copy carries the
-- original's), so a job that can be seen and looks otherwise is left alone.
-- Raises LP007 where a recorded job belongs to another role.

create or replace function lapse.remove_cron_jobs(p_keep bigint[])
    returns integer
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set row_security = on
as $$
declare
    v_jobid   bigint;
    v_removed integer := 0;
begin
    for v_jobid in
        select j.jobid
          from cron.job as j
         where j.database = current_database()
           and j.jobname = any (lapse.cron_job_names(false))
           and j.jobid <> all (p_keep)
           and (starts_with(j.command, 'call lapse.run_due(')
                or exists (select from lapse.cron_job as c
                            where c.cron_database = current_database() and c.jobid = j.jobid))
         order by j.jobid
    loop
        perform cron.unschedule(v_jobid);
        v_removed := v_removed + 1;
    end loop;

    for v_jobid in
        select c.jobid
          from lapse.cron_job as c
         where c.cron_database = current_database()
           and c.jobid <> all (p_keep)
           and not exists (select from cron.job as j where j.jobid = c.jobid)
           -- With this right cron.unschedule asks no further, and would take a stranger's job.
           and not has_table_privilege('cron.job', 'delete')
         order by c.jobid
    loop
        begin
            perform cron.unschedule(v_jobid);
        exception
            when internal_error then
                null;  -- 'could not find valid entry': somebody removed it
            when insufficient_privilege then
                raise exception 'pg_cron''s job % is recorded as ours and belongs to another role than %', v_jobid, current_user
                    using errcode = 'LP007',
                          hint = format(
                              'As a superuser: select * from cron.job where jobid = %s; if it calls lapse.run_due: select cron.unschedule(%s); otherwise: select lapse.forget_cron_jobs(%L);',
                              v_jobid, v_jobid, current_database());
        end;
    end loop;

    return v_removed;
end;
$$;

comment on function lapse.remove_cron_jobs(bigint[]) is
    'Remove our pg_cron jobs from this database, but for those to keep; returns how many went.';
