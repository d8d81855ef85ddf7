-- lapse.doctor_pg_cron: is pg_cron here, loaded, and for which database?
--
-- In: the time. Out: findings for lapse.doctor. It is no trouble that pg_cron is missing, as
-- long as a worker keeps the schedule: that it does is another check's business, lapse.doctor_schedule.

create or replace function lapse.doctor_pg_cron(p_now timestamptz)
    returns table (level text, message text, command text)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_seen      text := lapse.cron_setting('database_name');
    v_home      text := coalesce(nullif(v_seen, ''), lapse.cron_home());
    v_installed text := (select e.extversion from pg_extension as e where e.extname = 'pg_cron');
    v_library   text := (select a.default_version from pg_available_extensions as a where a.name = 'pg_cron');
    v_elsewhere text := (select min(c.cron_database) from lapse.recorded_cron_jobs() as c
                          where c.cron_database <> current_database());
begin
    if v_home is null and v_installed is not null then
        return query select
            'fail', 'the extension pg_cron is in this database, and the server does not load it: no job runs',
            'add pg_cron to shared_preload_libraries in postgresql.conf and restart PostgreSQL';
    elsif v_home is null and v_elsewhere is not null then
        return query select
            'fail', format('the server does not load pg_cron, and jobs for this database are recorded in database %s',
                           v_elsewhere),
            'add pg_cron to shared_preload_libraries in postgresql.conf and restart PostgreSQL';
    elsif v_home is null then
        return query select
            'ok', 'this server has no pg_cron: a worker keeps the schedule', null::text;
    elsif v_installed is not null and v_home not in ('', current_database()) then
        return query select
            'fail', format('the extension pg_cron is in this database, and the server runs the jobs of database %s', v_home),
            lapse.cron_command('schedule', v_home);
    elsif v_installed is not null then
        if v_library <> v_installed then
            return query select
                'warn', format('pg_cron %s is installed here, and its library is %s', v_installed, v_library),
                'alter extension pg_cron update; -- and then: select * from lapse.schedule();';
        end if;
        return query select
            'ok', format('pg_cron %s is loaded, and in this database', v_installed), null::text;
    elsif v_home = current_database() then
        return query select
            'warn', 'the server loads pg_cron for this database, which has no jobs for it yet',
            'select * from lapse.schedule();';
    elsif v_home <> '' and v_elsewhere is distinct from v_home
          and exists (select from pg_available_extensions as a where a.name = 'pg_cron') then
        return query select
            'ok',
            format('pg_cron lives in database %s, without a job for this one: a worker keeps the schedule; %s would hand it over',
                   v_home, lapse.cron_command('schedule', v_home)),
            null::text;
    elsif v_home <> '' then
        return query select
            'ok', format('pg_cron lives in database %s, where jobs for this one are recorded', v_home), null::text;
    else
        return query select
            'ok', coalesce('jobs are recorded in database ' || v_elsewhere || ', where pg_cron is said to live; ', '')
                  || 'pg_cron is loaded, and where it lives is not to be seen by this role (pg_read_all_settings)',
            null::text;
    end if;
end;
$$;

comment on function lapse.doctor_pg_cron(timestamptz) is
    'Check of lapse.doctor: whether pg_cron is loaded, and for which database.';
