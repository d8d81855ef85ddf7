-- lapse.unschedule: take the schedule away from pg_cron.
--
-- Out: how many jobs went; 0, and no error, where there are none. Runs as the
-- engine's owner, whose jobs they are, whoever calls. Jobs that live in another
-- database can't be reached from here: a warning names the command that can.
-- Raises LP007 where pg_cron does not let the owner in or a job is another role's.

create or replace function lapse.unschedule()
    returns integer
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_removed   integer := 0;
    v_elsewhere text;
begin
    perform pg_advisory_xact_lock(1818324340, 1);  -- schedule and unschedule take turns

    if exists (select from pg_extension as e where e.extname = 'pg_cron') then
        if has_schema_privilege('cron', 'usage') then
            v_removed := lapse.remove_cron_jobs('{}');
        elsif exists (select from lapse.cron_job as c where c.cron_database = current_database()) then
            raise exception 'role %, which owns the engine, may not use schema cron', current_user
                using errcode = 'LP007',
                      hint = format('As the owner of pg_cron, in database %I: grant usage on schema cron to %I;',
                                    current_database(), current_user);
        end if;
    end if;
    delete from lapse.cron_job as c where c.cron_database = current_database();

    select min(c.cron_database) into v_elsewhere from lapse.cron_job as c;
    if v_elsewhere is not null then
        raise warning 'jobs for this database remain in database %', v_elsewhere
            using hint = lapse.cron_command('unschedule', v_elsewhere);
    end if;

    return v_removed;
end;
$$;

comment on function lapse.unschedule() is
    'Remove the pg_cron jobs that lapse.schedule made; returns how many went.';
