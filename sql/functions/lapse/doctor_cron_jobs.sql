-- lapse.doctor_cron_jobs: are our jobs as they should be, and is nobody else's in the way?
--
-- In: the time. Out: findings for lapse.doctor, where pg_cron lives in this database; what lies
-- in another, `pglapse doctor --cron-dsn` looks at. A role that is gone crashes the launcher
-- over its job again and again; a job that came with a restored dump ticks beside ours; one
-- whose port, database or role is another's does nothing. pg_cron shows a role its own jobs
-- only, hence row_security: what is hidden is said to be.

create or replace function lapse.doctor_cron_jobs(p_now timestamptz)
    returns table (level text, message text, command text)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
    set row_security = on
as $$
declare
    v_version text := (select e.extversion from pg_extension as e where e.extname = 'pg_cron');
    v_owner   name := (select r.rolname from pg_namespace as n join pg_roles as r on r.oid = n.nspowner
                        where n.nspname = 'lapse');
    v_where   text;
    v_count   bigint;
begin
    if v_version is null then
        select string_agg(distinct c.cron_database, ', '), count(*)
          into v_where, v_count
          from lapse.recorded_cron_jobs() as c;
        return query select
            'ok',
            coalesce(v_count || ' jobs are recorded in database ' || v_where || ', where pglapse doctor looks at them', 'no job is recorded'),
            null::text;
        return;
    end if;
    if not has_schema_privilege('cron', 'usage') then
        return query select
            'fail', format('role %s may not use schema cron', current_user),
            format('grant usage on schema cron to %I;', current_user);
        return;
    end if;

    return query
    select 'fail',
           format('job %s is not as it should be: %s', p.jobname,
                  case when j.jobid is null then 'it is not there'
                       when not j.active then 'it is switched off'
                       when j.schedule <> p.schedule then format('its schedule is %s, not %s', j.schedule, p.schedule)
                       when j.command <> p.command then 'its command is another'
                       when j.database <> current_database() then format('it runs in database %s', j.database)
                       else format('it goes to port %s, and the server listens on %s', j.nodeport, current_setting('port'))
                  end),
           'select * from lapse.schedule();'
      from lapse.cron_plan(v_version) as p
      left join cron.job as j on j.jobname = p.jobname and j.username = v_owner
     where exists (select from lapse.recorded_cron_jobs())
       and (j.jobid is null or not j.active or j.schedule <> p.schedule or j.command <> p.command
            or j.database <> current_database() or j.nodeport <> current_setting('port')::integer);

    -- A restored dump has the jobs of the original, without what pglapse recorded of them, or with it.
    return query
    select 'warn',
           format('job %s of role %s calls lapse.run_due here, too%s', j.jobid, j.username,
                  coalesce(', by the name of ' || j.jobname, '')),
           case when j.jobname = any (lapse.cron_job_names(false)) then 'select * from lapse.schedule();'
                else format('select cron.unschedule(%s);', j.jobid) end
      from cron.job as j
     where j.database = current_database()
       and j.active
       and j.command ~* '\mlapse\.run_due\M'
       and not (j.username = v_owner and j.jobname = any (lapse.cron_job_names(false)));

    return query
    select 'fail',
           format('job %s belongs to role %s, which does not exist: pg_cron fails or crashes over it each time', j.jobid, j.username),
           format('select cron.unschedule(%s);', j.jobid)
      from cron.job as j
     where not exists (select from pg_roles as r where r.rolname = j.username);

    return query
    select 'warn',
           format('job %s runs in database %s, which does not exist', j.jobid, j.database),
           format('select cron.unschedule(%s);', j.jobid)
      from cron.job as j
     where j.active and not exists (select from pg_database as d where d.datname = j.database);

    select count(*) into v_count from cron.job as j where j.username = v_owner and j.jobname = any (lapse.cron_job_names(false));
    return query select
        'ok',
        format('%s of our jobs, as they should be%s', v_count,
               case when not (select r.rolsuper or r.rolbypassrls from pg_roles as r where r.rolname = current_user)
                    then '; other roles'' are not to be seen by this one' else '' end),
        null::text;
end;
$$;

comment on function lapse.doctor_cron_jobs(timestamptz) is
    'Check of lapse.doctor: pg_cron''s jobs in this database, ours and those that are in the way.';
