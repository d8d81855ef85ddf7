-- lapse.doctor_snapshots: who keeps dead rows alive?
--
-- In: the time. Out: findings for lapse.doctor. As long as somebody may still look at the past,
-- no vacuum removes what has been deleted since: sweeps and claims read it again and
-- again, 4 to 50 times dearer. Such are transactions that stay open in this database, ones
-- prepared for a two-phase commit, and replication slots whose reader is away. Of other
-- roles' sessions a role sees what they hold only with pg_read_all_stats.

create or replace function lapse.doctor_snapshots(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with open as materialized (
        select a.pid, coalesce(a.usename, '?') as usename, coalesce(nullif(a.application_name, ''), 'no name') as application,
               a.state, p_now - a.xact_start as age
          from pg_stat_activity as a
         where a.datname = current_database()
           and a.pid <> pg_backend_pid()
           and coalesce(a.backend_xmin, a.backend_xid) is not null
           and a.backend_type is distinct from 'autovacuum worker'
           and a.xact_start is not null
    )
    select case when o.age > interval '1 hour' then 'fail' else 'warn' end,
           format('process %s of role %s (%s, %s) has had a transaction open for %s: nothing that was deleted since can be removed',
                  o.pid, o.usename, o.application, coalesce(o.state, 'no state'), lapse.doctor_span(o.age)),
           format('select pg_terminate_backend(%s); -- or end its transaction', o.pid)
      from open as o
     where o.age > interval '10 minutes'
    union all
    select case when p_now - x.prepared > interval '1 hour' then 'fail' else 'warn' end,
           format('transaction %s of role %s was prepared %s ago and is neither committed nor rolled back', x.gid, x.owner,
                  lapse.doctor_span(p_now - x.prepared)),
           format('rollback prepared %L; -- or: commit prepared %L;', x.gid, x.gid)
      from pg_prepared_xacts as x
     where x.database = current_database() and x.prepared < p_now - interval '10 minutes'
    union all
    select case when not s.active then 'fail' else 'warn' end,
           format('replication slot %s%s keeps what was deleted in the last %s transactions', s.slot_name,
                  case when s.active then '' else ', which nobody reads,' end,
                  greatest(age(s.xmin), age(s.catalog_xmin))),
           format('select pg_drop_replication_slot(%L); -- if its reader does not come back', s.slot_name)
      from pg_replication_slots as s
     where greatest(age(s.xmin), age(s.catalog_xmin)) > case when s.active then 5000000 else 100000 end
    union all
    select 'ok',
           coalesce((select format('the oldest snapshot here is %s old: process %s of role %s (%s)',
                                   lapse.doctor_span(greatest(o.age, interval '0')), o.pid, o.usename, o.application)
                       from open as o order by o.age desc limit 1), 'no snapshot is held here')
           || case when pg_has_role(current_user, 'pg_read_all_stats', 'usage') then ''
                   else '; other roles'' are not to be seen by this one (pg_read_all_stats)' end,
           null
$$;

comment on function lapse.doctor_snapshots(timestamptz) is
    'Check of lapse.doctor: the oldest snapshot and who holds it; prepared transactions; replication slots.';
