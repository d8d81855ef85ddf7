-- lapse.doctor_cron_history: does cron.job_run_details grow without bound?
--
-- In: the time. Out: findings for lapse.doctor, where pg_cron lives in this database. pg_cron
-- never removes an entry; policy prune_cron_details removes ours, and nobody else's. Rows
-- are estimated, and whose they are is told from the newest thousand.

create or replace function lapse.doctor_cron_history(p_now timestamptz)
    returns table (level text, message text, command text)
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
    set row_security = on
as $$
declare
    c_large  constant bigint := 256 * 1024 * 1024;
    v_table  oid := (select c.oid from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
                      where n.nspname = 'cron' and c.relname = 'job_run_details' and c.relkind = 'r');
    v_bytes  bigint := pg_total_relation_size(v_table);
    v_rows   bigint := (select greatest(c.reltuples, 0)::bigint from pg_class as c where c.oid = v_table);
    v_seen   bigint;
    v_ours   bigint;
    v_keep   text := (select extract(epoch from s.cron_details_keep) || ' seconds' from lapse.setting as s);
begin
    if v_table is null then
        return query select 'ok', 'pg_cron''s history is not in this database', null::text;
        return;
    end if;

    if has_schema_privilege('cron', 'usage') then
        select count(*),
               count(*) filter (where d.database = current_database() and starts_with(d.command, 'call lapse.run_due('))
          into v_seen, v_ours
          from (select r.database, r.command from cron.job_run_details as r order by r.runid desc limit 1000) as d;
    end if;

    if v_bytes > c_large then
        return query select
            'warn',
            format('cron.job_run_details has %s and about %s rows%s, which pg_cron never removes', pg_size_pretty(v_bytes), v_rows,
                   case when v_seen > 0 then format('; of the newest %s, %s are not ours', v_seen, v_seen - v_ours) end),
            format('delete from cron.job_run_details where end_time < now() - %L::interval; -- and then: vacuum full cron.job_run_details;',
                   v_keep);
    end if;
    return query
    select 'warn', 'policy prune_cron_details is paused: our entries in cron.job_run_details stay',
           'select lapse.resume(''prune_cron_details'');'
      from lapse.policy as p
     where p.name = 'prune_cron_details' and not p.enabled;
    return query select
        'ok',
        format('cron.job_run_details has %s and about %s rows%s', pg_size_pretty(v_bytes), v_rows,
               case when v_seen > 0 then format('; of the newest %s, %s are not ours', v_seen, v_seen - v_ours) end),
        null::text;
end;
$$;

comment on function lapse.doctor_cron_history(timestamptz) is
    'Check of lapse.doctor: the size of cron.job_run_details, and whose rows are in it.';
