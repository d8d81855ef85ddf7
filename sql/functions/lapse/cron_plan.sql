-- lapse.cron_plan: the jobs that this database wants of pg_cron.
--
-- In: the version of pg_cron, and the role that makes the jobs where pg_cron lives
-- in another database of the cluster (NULL: it lives here). Out: name, schedule
-- and command of each job; whether it runs in the database of pg_cron rather than
-- here; and the role that it has to run as (NULL: as the role that makes it).
-- Raises LP001 for an unknown role, LP007 where the role could not run the jobs.
--
-- Two jobs, so that one stuck policy does not hold up the rest. Each command is one
-- CALL and nothing else, since a second statement would put it into a transaction
-- and its COMMITs would be refused. Before 1.5 a job can run each minute at most, so
-- there the call stays for its minute.
-- Where pg_cron lives elsewhere, a job there prunes our run details; its interval is
-- that of lapse.setting when the job is made. An entry may have no times at all (the
-- connection failed), so age is judged by the newest entry that is old enough.

create or replace function lapse.cron_plan(p_extversion text, p_cron_user text default null)
    returns table (jobname text, schedule text, command text, in_cron_database boolean, run_as text)
    language plpgsql
    stable
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_database text := current_database();
    v_seconds  boolean := lapse.cron_knows_seconds(p_extversion);
    v_schedule text := case when v_seconds then '10 seconds' else '* * * * *' end;
    v_command  text := case when v_seconds then 'call lapse.run_due(''pg_cron'')'
                            else 'call lapse.run_due(''pg_cron'', true)' end;
    v_role     record;
    v_run_as   text := current_user;  -- the engine's owner
    v_names    text[] := lapse.cron_job_names(p_cron_user is not null);
    v_keep     numeric;
begin
    if p_cron_user is not null then
        select r.rolsuper, r.oid into v_role from pg_roles as r where r.rolname = p_cron_user;
        if not found then
            raise exception 'role % does not exist', p_cron_user
                using errcode = 'LP001',
                      hint = 'Name the role that makes the jobs in the database of pg_cron.';
        end if;
        -- Only a superuser may make a job for another role.
        if not v_role.rolsuper then
            v_run_as := p_cron_user;
        end if;
    end if;

    if not (select r.rolcanlogin from pg_roles as r where r.rolname = v_run_as) then
        raise exception 'the jobs would run as role %, which may not log in', v_run_as
            using errcode = 'LP007',
                  hint = format('As a superuser: alter role %I login;', v_run_as);
    end if;
    if not has_database_privilege(v_run_as, v_database, 'connect') then
        raise exception 'the jobs would run as role %, which may not connect to database %', v_run_as, v_database
            using errcode = 'LP007',
                  hint = format('grant connect on database %I to %I;', v_database, v_run_as);
    end if;
    if v_run_as <> current_user and not (
        has_schema_privilege(v_run_as, 'lapse', 'usage')
        and has_function_privilege(v_run_as, 'lapse.run_due(text, boolean, interval)', 'execute')
    ) then
        raise exception 'the jobs would run as role %, which may not call lapse.run_due', v_run_as
            using errcode = 'LP007',
                  hint = format('In database %I: select lapse.grant_runner(%L);', v_database, v_run_as);
    end if;

    return query
    select n.name, v_schedule, v_command, false,
           case when v_run_as <> p_cron_user then v_run_as end
      from unnest(v_names[1:2]) as n(name);

    if p_cron_user is not null then
        select extract(epoch from s.cron_details_keep) into v_keep from lapse.setting as s;
        return query
        select v_names[3], '17 * * * *',
               format(
                   'with ours as (select d.runid, coalesce(d.end_time, d.start_time) as at, d.status'
                   ' from cron.job_run_details as d where d.username = %1$L and d.database = %2$L'
                   ' and starts_with(d.command, ''call lapse.run_due('')'
                   ' or d.jobid in (select j.jobid from cron.job as j where j.jobname = %3$L and j.username = current_user)),'
                   ' old as (select max(o.runid) as runid from ours as o where o.at < now() - %4$L::interval)'
                   ' delete from cron.job_run_details as d using (select o.runid from ours as o, old'
                   ' where o.runid <= old.runid and o.status in (''succeeded'', ''failed'')'
                   ' order by o.runid limit 10000) as gone where d.runid = gone.runid',
                   v_run_as, v_database, v_names[3], v_keep || ' seconds'
               ),
               true, null::text;
    end if;
end;
$$;

comment on function lapse.cron_plan(text, text) is
    'The pg_cron jobs that this database wants: name, schedule, command, where each runs and as whom.';
