-- lapse.doctor_cron_mode: can pg_cron run two jobs side by side, and does it start any?
--
-- In: the time. Out: findings for lapse.doctor. Of pg_cron 1.4 with background workers one long
-- job blocks everybody's, so lapse.run_due does not stay for its minute there, and policies
-- of less than a minute run each minute. Of newer ones the launcher may be told to start none.

create or replace function lapse.doctor_cron_mode(p_now timestamptz)
    returns table (level text, message text, command text)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_version text := (select e.extversion from pg_extension as e where e.extname = 'pg_cron');
    v_workers text := lapse.cron_setting('use_background_workers');
    v_owner   name := (select r.rolname from pg_namespace as n join pg_roles as r on r.oid = n.nspowner
                        where n.nspname = 'lapse');
begin
    if v_workers is null then
        return query select 'ok', 'pg_cron is not loaded', null::text;
        return;
    elsif v_workers = '' then
        return query select
            'ok', 'how pg_cron runs its jobs is not to be seen by this role (pg_read_all_settings)', null::text;
        return;
    end if;

    if v_workers = 'on' and v_version is not null and not lapse.cron_knows_seconds(v_version) then
        return query select
            'warn',
            format('pg_cron %s runs jobs in background workers, where a long job of anybody blocks all: policies of less than a minute run each minute',
                   v_version),
            'alter system set cron.use_background_workers = off; -- and restart PostgreSQL, or update pg_cron to 1.5';
    end if;
    if lapse.cron_setting('launch_active_jobs') = 'off' then
        return query select
            'fail', 'pg_cron is told to start no job',
            'alter system set cron.launch_active_jobs = on; -- and then: select pg_reload_conf();';
    end if;
    if lapse.cron_setting('enable_superuser_jobs') = 'off'
       and (select r.rolsuper from pg_roles as r where r.rolname = v_owner)
       and exists (select from lapse.recorded_cron_jobs()) then
        return query select
            'fail', format('pg_cron runs no job of a superuser, and role %s, whose jobs ours are, is one', v_owner),
            'alter system set cron.enable_superuser_jobs = on; -- and restart PostgreSQL';
    end if;
    return query select
        'ok', case v_workers when 'on' then 'pg_cron runs jobs in background workers'
                             else 'pg_cron runs jobs over connections of its own' end, null::text;
end;
$$;

comment on function lapse.doctor_cron_mode(timestamptz) is
    'Check of lapse.doctor: whether pg_cron can run our jobs side by side, and starts them.';
