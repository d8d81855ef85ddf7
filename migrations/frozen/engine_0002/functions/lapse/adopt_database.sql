-- lapse.adopt_database: this database is pglapse's own from now on: policies run, files are deleted.
--
-- In: whether only to say what would happen. Out: lines for people: what was taken over, and what happens next,
-- which is a lot where the copy is old: rows due, policy by policy, and files due; both counted to 10,000 and then
-- 'at least'. Then what of the original came along and needs a hand: roots of storages, jobs of pg_cron. Workers
-- that wait for this are nudged; they need no restart. Adopting twice changes nothing. Runs with its caller's
-- rights: the engine's owner.

create or replace function lapse.adopt_database(p_dry_run boolean default false)
    returns setof text
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_reason   text;
    v_rows     text;
    v_files    text;
    v_storages text;
    v_jobs     text;
begin
    if p_dry_run is null then
        raise exception 'p_dry_run may not be NULL'
            using errcode = 'LP001', hint = 'Leave it out to adopt the database.';
    end if;

    perform from lapse.identity as i for update;
    v_reason := lapse.halt_reason();

    if v_reason is null then
        return next format('database %s is adopted already: nothing is changed', current_database());
    elsif p_dry_run then
        return next v_reason;
        return next 'nothing is changed: this is what adopting it would mean';
    else
        insert into lapse.identity as i (system_identifier, database_name)
        select c.system_identifier, current_database() from pg_control_system() as c
        on conflict (only_row) do update
           set system_identifier = excluded.system_identifier,
               database_name     = excluded.database_name,
               adopted_at        = clock_timestamp(),
               adopted_by        = current_user,
               disowned_at       = null,
               disowned_by       = null;
        perform pg_notify('file_cleanup_queue', '');
        return next format('database %s is adopted; before: %s', current_database(), v_reason);
    end if;

    select string_agg(format('%s %s', s.policy, s.backlog), ', ' order by s.policy) into v_rows
      from lapse.policy_status as s
     where s.enabled and s.backlog_rows > 0;
    return next format('rows due now, to be taken by the next tick: %s', coalesce(v_rows, 'none that a policy counts'));

    select string_agg(format('%s %s%s', q.storage, case when q.counts_are_minimum then 'at least ' end, q.due), ', '
                      order by q.storage) into v_files
      from lapse.queue_by_storage as q
     where q.due > 0;
    return next format('files due now, to be deleted as soon as a worker serves their storage: %s',
                       coalesce(v_files, 'none'));

    select string_agg(s.name, ', ' order by s.name) into v_storages from lapse.storage as s;
    if v_storages is not null then
        return next format('storages: %s; their roots'' markers came along with a copy: where the original lives on, give '
                           'the workers of this database roots of its own first', v_storages);
    end if;

    select string_agg(distinct format('%s in database %s', c.jobname, c.cron_database), ', ') into v_jobs
      from lapse.cron_job as c
     where c.cron_database <> current_database();
    if v_jobs is not null then
        return next format('jobs of pg_cron on record: %s; they are the original''s where this is a copy: select '
                           'lapse.forget_cron_jobs(); then: pglapse schedule --cron-dsn ...', v_jobs);
    end if;

    -- pg_dump carries cron.job along; its jobs name the database that they call.
    if to_regclass('cron.job') is not null and has_table_privilege('cron.job', 'select') then
        execute 'select string_agg(format(''%s calls %s'', j.jobid, j.database), '', '' order by j.jobid) from cron.job as j '
                'where j.database <> current_database() and starts_with(j.command, ''call lapse.run_due('')'
           into v_jobs;
        if v_jobs is not null then
            return next format('jobs of pg_cron here that call another database: %s; where a dump brought them: select '
                               'cron.unschedule(JOBID) for each', v_jobs);
        end if;
        return next 'to have pg_cron keep the schedule: select lapse.schedule(); until it ticks, a worker does';
    end if;
end;
$$;

comment on function lapse.adopt_database(boolean) is
    'Let pglapse work in this database, a copy or renamed one, from now on; says what was taken over and what is due.';
