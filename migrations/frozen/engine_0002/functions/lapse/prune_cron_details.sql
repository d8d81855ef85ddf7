-- lapse.prune_cron_details: a step; forgets our old runs in cron.job_run_details.
--
-- In and out: as every step; p_cutoff is the time of the run, and entries older than
-- lapse.setting.cron_details_keep before it are due. Ours are those of recorded
-- jobs, and those of this role that called lapse.run_due here; another's are never
-- touched. Nothing to do where pg_cron is not in this database: there a job of that
-- database prunes (see lapse.cron_plan). Row security stays on, since the table has
-- it and would refuse an owner who is no superuser otherwise.
-- An entry whose connection failed has no times, and only the number says how old it
-- is; the table has no other index. So p_after is of no use here: each batch reads
-- from the smallest number again, once a day.

create or replace function lapse.prune_cron_details(p_limit integer, p_cutoff timestamptz, p_after timestamptz)
    returns lapse.progress
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set row_security = on
as $$
declare
    v_before  timestamptz := p_cutoff - (select s.cron_details_keep from lapse.setting as s);
    v_picked  integer;
    v_reached timestamptz;
begin
    if not exists (select from pg_extension as e where e.extname = 'pg_cron')
       or not has_schema_privilege('cron', 'usage')
    then
        return row(0, 0, p_after)::lapse.progress;
    end if;

    with ours as materialized (
        select d.runid, d.status, coalesce(d.end_time, d.start_time) as at
          from cron.job_run_details as d
         where d.jobid in (select c.jobid from lapse.cron_job as c where c.cron_database = current_database())
            or (d.username = current_user
                and d.database = current_database()
                and starts_with(d.command, 'call lapse.run_due('))
    ),
    doomed as materialized (
        select o.runid, o.at
          from ours as o
         where o.runid <= (select max(old.runid) from ours as old where old.at < v_before)
           and o.status in ('succeeded', 'failed')
         order by o.runid
         limit p_limit
    ),
    gone as (
        delete from cron.job_run_details as d
         using doomed as x
         where d.runid = x.runid
        returning x.at
    )
    select count(*), max(g.at) into v_picked, v_reached from gone as g;

    -- Numbers and times need not have one order; the engine wants progress.
    return row(v_picked, v_picked, least(greatest(v_reached, p_after), p_cutoff))::lapse.progress;
end;
$$;

comment on function lapse.prune_cron_details(integer, timestamptz, timestamptz) is
    'Step: delete our own old entries of cron.job_run_details, where pg_cron lives in this database.';
