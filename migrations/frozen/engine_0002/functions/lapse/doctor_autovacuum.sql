-- lapse.doctor_autovacuum: are dead rows removed?
--
-- In: the time. Out: findings for lapse.doctor, on our own tables and those of policies: whether
-- autovacuum is switched off, for all or for one, and where dead rows pile up. A table
-- whose rows lapse is half dead rows by nature; more than that, and ten thousand, is a pile.

create or replace function lapse.doctor_autovacuum(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with tables as materialized (
        select w.name, w.ours, c.reloptions, t.n_dead_tup, t.n_live_tup,
               greatest(t.last_autovacuum, t.last_vacuum) as vacuumed_at
          from lapse.watched_tables() as w
          join pg_class as c on c.oid = w.relation and c.relkind = 'r'
          left join pg_stat_all_tables as t on t.relid = w.relation
    )
    select 'fail', format('%s is off for the whole server: dead rows are never removed', s.name),
           format('alter system set %s = on; -- and then: select pg_reload_conf();', s.name)
      from pg_settings as s
     where s.name in ('autovacuum', 'track_counts') and s.setting = 'off'
    union all
    select 'fail', format('autovacuum is off for table %s', t.name),
           format('alter table %s reset (autovacuum_enabled);', t.name)
      from tables as t, unnest(t.reloptions) as o (said)
     where lower(o.said) in ('autovacuum_enabled=false', 'autovacuum_enabled=off', 'autovacuum_enabled=no', 'autovacuum_enabled=0')
    union all
    select 'warn',
           format('table %s has %s dead rows beside %s live ones; it was %s', t.name, t.n_dead_tup, t.n_live_tup,
                  coalesce('last vacuumed ' || lapse.doctor_span(p_now - t.vacuumed_at) || ' ago', 'never vacuumed')),
           format('vacuum (analyze) %s; -- in vain while somebody holds an old snapshot: select * from lapse.doctor(''snapshots'');', t.name)
      from tables as t
     where t.n_dead_tup > greatest(10000, t.n_live_tup)
    union all
    select 'ok',
           format('autovacuum is on; most dead rows: %s',
                  coalesce((select format('%s in %s', t.n_dead_tup, t.name) from tables as t
                             where t.n_dead_tup > 0 order by t.n_dead_tup desc limit 1), 'none')),
           null
$$;

comment on function lapse.doctor_autovacuum(timestamptz) is
    'Check of lapse.doctor: whether autovacuum is on for our tables, and where dead rows pile up.';
