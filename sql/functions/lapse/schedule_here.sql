-- lapse.schedule_here: make the jobs in this database's own pg_cron.
--
-- Out: the jobs. Called by lapse.schedule once pg_cron is known to be here. Runs as
-- the engine's owner whoever calls: pg_cron tells jobs apart by name and role, and
-- a second caller would make a second set. A job that is already as it should be
-- stays untouched; one that was switched off or altered is made afresh, since
-- pg_cron's own renewal keeps its port, database and off switch.
-- Raises LP007 where pg_cron refuses; nothing is half done.

create or replace function lapse.schedule_here()
    returns table (jobname text, schedule text, command text)
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set row_security = on
as $$
declare
    v_job    record;
    v_jobid  bigint;
    v_jobids bigint[] := '{}';
    v_jobs   jsonb := '[]';
begin
    perform pg_advisory_xact_lock(1818324340, 1);  -- two callers take turns

    if not has_schema_privilege('cron', 'usage') then
        raise exception 'role %, which owns the engine, may not use schema cron', current_user
            using errcode = 'LP007',
                  hint = format('As the owner of pg_cron, in database %I: grant usage on schema cron to %I;',
                                current_database(), current_user);
    end if;

    for v_job in
        select p.jobname, p.schedule, p.command
          from pg_extension as e, lapse.cron_plan(e.extversion) as p
         where e.extname = 'pg_cron'
         order by p.jobname
    loop
        select j.jobid
          into v_jobid
          from cron.job as j
         where j.jobname = v_job.jobname
           and j.username = current_user
           and j.schedule = v_job.schedule
           and j.command = v_job.command
           and j.database = current_database()
           and j.nodeport = current_setting('port')::integer
           and j.nodename = coalesce(nullif(lapse.cron_setting('host'), ''), j.nodename)
           and j.active;
        if not found then
            begin
                perform cron.unschedule(j.jobid)
                   from cron.job as j
                  where j.jobname = v_job.jobname
                    and j.username = current_user;
                v_jobid := cron.schedule(v_job.jobname, v_job.schedule, v_job.command);
            exception
                when others then
                    raise exception 'pg_cron refuses job % of role %', v_job.jobname, current_user
                        using errcode = 'LP007',
                              detail = format('%s: %s', sqlstate, sqlerrm),
                              hint = format('As role %I: select cron.schedule(%L, %L, %L); shows it alone.',
                                            current_user, v_job.jobname, v_job.schedule, v_job.command);
            end;
        end if;
        v_jobids := v_jobids || v_jobid;
        v_jobs := v_jobs || jsonb_build_object('jobname', v_job.jobname, 'jobid', v_jobid,
                                               'schedule', v_job.schedule, 'command', v_job.command);
    end loop;

    perform lapse.remove_cron_jobs(v_jobids);
    perform lapse.record_cron_jobs(current_database(), v_jobs);

    return query
    select j.jobname, j.schedule, j.command
      from jsonb_to_recordset(v_jobs) as j(jobname text, schedule text, command text);
end;
$$;

comment on function lapse.schedule_here() is
    'The part of lapse.schedule that runs as the engine''s owner: makes and records the jobs.';
