-- lapse.doctor_schedule: does anybody call lapse.run_due?
--
-- In: the time. Out: findings for lapse.doctor. Two minutes are allowed, after which a worker
-- takes over from pg_cron, and another one, which that takes. Whether pg_cron's launcher
-- lives is told where its process is to be seen (pg_read_all_stats): on 1.4 one that ended
-- never comes back by itself. What pg_cron said last of our jobs
-- is passed on, since a job that can't connect is silent here.

create or replace function lapse.doctor_schedule(p_now timestamptz)
    returns table (level text, message text, command text)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
    set row_security = on  -- of pg_cron's history a role sees its own
as $$
declare
    c_patience constant interval := interval '3 minutes';
    v_last     record;
    v_cron     timestamptz := (select t.last_tick_at from lapse.tick_source as t where t.source = 'pg_cron');
    v_where    text := (select min(c.cron_database) from lapse.cron_job as c);
    v_made     timestamptz := (select max(c.scheduled_at) from lapse.cron_job as c);
    v_home     text := lapse.cron_setting('database_name');
    v_launcher boolean;
    v_said     text;
    v_mend     text;
begin
    select t.source, t.last_tick_at into v_last from lapse.tick_source as t order by t.last_tick_at desc limit 1;

    if v_home is not null and pg_has_role(current_user, 'pg_read_all_stats', 'usage') then
        v_launcher := exists (select from pg_stat_activity as a where a.backend_type like 'pg_cron%');
    end if;
    if v_where = current_database() and has_schema_privilege(current_user, (select n.oid from pg_namespace as n where n.nspname = 'cron'), 'usage') then
        select left(d.return_message, 300)
          into v_said
          from (select r.jobid, r.status, r.return_message, r.runid from cron.job_run_details as r order by r.runid desc limit 1000) as d
         where d.status = 'failed'
           and d.jobid in (select c.jobid from lapse.cron_job as c where c.cron_database = v_where)
         order by d.runid desc
         limit 1;
    end if;
    v_mend := case
        when v_said ~* 'connect|password|pg_hba|authentication'
            then 'let pg_cron''s own connections in (pg_hba.conf, .pgpass of the server''s user), or have it use none: alter system set cron.use_background_workers = on; and restart PostgreSQL'
        when v_where is not null and v_home is null
            then 'add pg_cron to shared_preload_libraries in postgresql.conf and restart PostgreSQL; or start a worker: pglapse worker'
        when v_where is not null and not v_launcher
            then 'restart PostgreSQL: pg_cron''s launcher has ended and does not come back by itself; or start a worker: pglapse worker'
        when v_where <> current_database() then lapse.cron_command('schedule', v_where)
        when v_where is not null then 'select * from lapse.schedule();'
        when v_home = current_database()
             or exists (select from pg_extension as e where e.extname = 'pg_cron') then 'select * from lapse.schedule();'
        when v_home <> '' then lapse.cron_command('schedule', v_home)
        else 'pglapse worker'
    end;

    if v_made > p_now - c_patience and v_last.last_tick_at is distinct from greatest(v_last.last_tick_at, v_made) then
        return query select
            'ok', format('pg_cron''s jobs were made %s ago; the first call is still to come',
                         lapse.doctor_span(greatest(p_now - v_made, interval '0'))), null::text;
        return;
    end if;

    if v_last.last_tick_at is null or v_last.last_tick_at < p_now - c_patience then
        return query select
            'fail',
            'nobody keeps the schedule: lapse.run_due was '
            || coalesce('last called ' || lapse.doctor_span(p_now - v_last.last_tick_at) || ' ago, by ' || v_last.source,
                        'never called')
            || case when not v_launcher then '; pg_cron''s launcher is not running' else '' end
            || coalesce('; pg_cron says: ' || v_said, ''),
            v_mend;
    elsif v_where is not null and (v_cron is null or v_cron < p_now - c_patience) then
        return query select
            'warn',
            format('pg_cron has jobs of ours and has not called lapse.run_due %s; %s does meanwhile',
                   coalesce('for ' || lapse.doctor_span(p_now - v_cron), 'so far'), v_last.source)
            || case when not v_launcher then '; its launcher is not running' else '' end
            || coalesce('; it says: ' || v_said, ''),
            v_mend;
    end if;
    return query select
        'ok', format('%s keeps the schedule, and last did so %s ago', v_last.source,
                     lapse.doctor_span(greatest(p_now - v_last.last_tick_at, interval '0'))), null::text;
end;
$$;

comment on function lapse.doctor_schedule(timestamptz) is
    'Check of lapse.doctor: whether pg_cron or a worker calls lapse.run_due.';
