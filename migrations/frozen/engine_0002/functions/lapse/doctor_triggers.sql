-- lapse.doctor_triggers: do our triggers fire?
--
-- In: the time. Out: findings for lapse.doctor: triggers that are switched off, settings of roles
-- and databases under which none fires, and tables that a subscription fills, which fires
-- only what is enabled always. Files of rows that go in the meantime stay for ever.

create or replace function lapse.doctor_triggers(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with ours as materialized (select o.* from lapse.own_triggers() as o)
    select 'fail',
           format('trigger %s on %s %s: what changes there is not noticed', o.trigger_name, o.table_name,
                  case o.enabled when 'D' then 'is switched off' else 'fires for replicated changes only' end),
           format('alter table %s enable trigger %I;', o.table_name, o.trigger_name)
      from ours as o
     where o.enabled in ('D', 'R')
    union all
    select 'fail', 'the queue''s trigger merge_plain_insert is gone: plain INSERTs fail on files that are queued already',
           'pglapse downgrade base and pglapse upgrade, or its definition from sql/triggers/lapse/merge_plain_insert.sql'
     where not exists (select from ours as o
                        where o.relation = 'lapse.file_cleanup_queue'::regclass and o.trigger_name = 'merge_plain_insert')
    union all
    select 'fail',
           format('session_replication_role is replica for %s: no trigger of ours fires',
                  concat_ws(' in ', case when s.setrole = 0 then 'all roles' else 'role ' || s.setrole::regrole end,
                                    case when s.setdatabase <> 0 then 'this database' end)),
           format('alter %s reset session_replication_role;',
                  case when s.setrole = 0 and s.setdatabase = 0 then 'role all'
                       when s.setrole = 0 then format('database %I', current_database())
                       else format('role %s', s.setrole::regrole)
                            || case when s.setdatabase <> 0 then format(' in database %I', current_database()) else '' end end)
      from pg_db_role_setting as s, unnest(s.setconfig) as c (said)
     where c.said = 'session_replication_role=replica'
       and s.setdatabase in (0, (select d.oid from pg_database as d where d.datname = current_database()))
    union all
    select 'fail', 'session_replication_role is replica for the whole server: no trigger of ours fires',
           'alter system reset session_replication_role; -- and then: select pg_reload_conf();'
      from pg_settings as s
     where s.name = 'session_replication_role' and s.setting = 'replica' and s.source in ('configuration file', 'command line')
    union all
    select 'warn',
           format('subscription %s fills %s, and trigger %s does not fire for what it changes', u.subname, o.table_name, o.trigger_name),
           format('alter table %s enable always trigger %I;', o.table_name, o.trigger_name)
      from pg_subscription_rel as r
      join pg_subscription as u on u.oid = r.srsubid
      join ours as o on o.relation = r.srrelid
     where o.enabled = 'O'
    union all
    select 'ok', format('%s triggers of ours, on %s tables, are switched on', count(*), count(distinct o.relation)), null
      from ours as o
$$;

comment on function lapse.doctor_triggers(timestamptz) is
    'Check of lapse.doctor: triggers of ours that do not fire.';
