-- lapse.schedule: let pg_cron keep the schedule.
--
-- Out: the jobs that now call lapse.run_due. Call it again whenever you like, also
-- as another role or after an update of pg_cron: there is one set of jobs afterwards.
-- Invoker, unlike its inner part, since it makes the extension where the caller may.
-- For the engine's owner and superusers: no lapse.grant_... gives it away.
-- Raises LP007 with the next command to type where pg_cron is not loaded, lives in
-- another database, may not be created or does not let the engine's owner in.
-- Without pg_cron nothing is lost: a worker keeps the schedule then.

create or replace function lapse.schedule()
    returns table (jobname text, schedule text, command text)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_home  text := lapse.cron_setting('database_name');
    v_owner text := (select r.rolname from pg_namespace as n join pg_roles as r on r.oid = n.nspowner
                      where n.nspname = 'lapse');
    v_error text;
begin
    if v_home is null then
        raise exception 'pg_cron is not loaded on this server'
            using errcode = 'LP007',
                  detail = 'Until it is, pglapse workers keep the schedule (pglapse worker --tick auto).',
                  hint = case
                      when not exists (select from pg_available_extensions as a where a.name = 'pg_cron')
                          then format('Install it first, on Debian: apt-get install postgresql-%s-cron',
                                      current_setting('server_version_num')::integer / 10000)
                      else format('Add pg_cron to shared_preload_libraries and cron.database_name = %L in postgresql.conf, restart PostgreSQL, and then: select lapse.schedule();',
                                  current_database())
                  end;
    end if;

    perform pg_advisory_xact_lock(1818324340, 1);  -- two callers take turns

    if v_home in ('', current_database()) and not exists (select from pg_extension as e where e.extname = 'pg_cron') then
        begin
            create extension pg_cron;
            if not has_schema_privilege(v_owner, 'cron', 'usage') then
                execute format('grant usage on schema cron to %I', v_owner);
            end if;
        exception
            when others then
                v_error := sqlerrm;
                v_home := coalesce((regexp_match(v_error, 'can only create extension in database (.+)$'))[1], v_home);
                if v_home in ('', current_database()) then
                    raise exception 'pg_cron is not installed in database %, and role % can''t create it', current_database(), current_user
                        using errcode = 'LP007',
                              detail = format('%s: %s', sqlstate, v_error),
                              hint = format('As a superuser, in database %I: create extension pg_cron; grant usage on schema cron to %I;',
                                            current_database(), v_owner)
                                     || case when v_home = '' then format(' Where cron.database_name, which this role can''t see, is '
                                                                         'another database: %s', lapse.cron_command('schedule', 'postgres'))
                                             else '' end;
                end if;
        end;
    end if;

    if v_home not in ('', current_database()) then
        raise exception 'pg_cron lives in database %, not in %', v_home, current_database()
            using errcode = 'LP007',
                  detail = 'Jobs for this database are made there.',
                  hint = lapse.cron_command('schedule', v_home);
    end if;

    return query select s.jobname, s.schedule, s.command from lapse.schedule_here() as s;
end;
$$;

comment on function lapse.schedule() is
    'Make the pg_cron jobs that keep the schedule, and the extension where the caller may; callable again and again.';
