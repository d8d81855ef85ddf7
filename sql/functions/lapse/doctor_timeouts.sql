-- lapse.doctor_timeouts: does a time limit cut the ticks short?
--
-- In: the time. Out: findings for lapse.doctor. One statement_timeout, from the role, the
-- database or the server, covers the whole CALL with all its commits and can't be set
-- inside, so a tick ends before it strikes and does less; PostgreSQL 17's
-- transaction_timeout ends the session. Judged for the roles that may call lapse.run_due and
-- log in, by PostgreSQL's own order: role in database, role, database, all, server.

create or replace function lapse.doctor_timeouts(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with limits (name, least_of) as (values ('statement_timeout', interval '55 s'), ('transaction_timeout', interval '15 s')),
    callers as (
        select r.oid, r.rolname
          from pg_proc as p
         cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
          join pg_roles as r on r.oid = a.grantee
         where p.pronamespace = 'lapse'::regnamespace and p.proname = 'run_due'
           and a.privilege_type = 'EXECUTE' and r.rolcanlogin
        union
        select r.oid, r.rolname from pg_namespace as n join pg_roles as r on r.oid = n.nspowner where n.nspname = 'lapse'
    ),
    given as (
        select distinct on (c.oid, l.name)
               c.rolname, l.name, l.least_of, o.origin, split_part(o.setting, '=', 2) as value
          from callers as c
         cross join limits as l
         cross join lateral (
               select s.setting, g.origin, g.place
                 from (select f.setdatabase, f.setrole, unnest(f.setconfig) as setting from pg_db_role_setting as f) as s
                 join pg_database as d on d.datname = current_database()
                 join lateral (values
                          (1, d.oid, c.oid, 'role in database'), (2, 0::oid, c.oid, 'role'),
                          (3, d.oid, 0::oid, 'database'), (4, 0::oid, 0::oid, 'all roles')
                      ) as g (place, in_database, of_role, origin)
                   on g.in_database = s.setdatabase and g.of_role = s.setrole
                where starts_with(s.setting, l.name || '=')
                union all
               select l.name || '=' || s.reset_val || coalesce(s.unit, ''), 'server', 5
                 from pg_settings as s
                where s.name = l.name and s.source in ('default', 'configuration file', 'command line', 'override')
               ) as o
         order by c.oid, l.name, o.place
    ),
    cut as (
        select g.*, (case when g.value ~ '^\s*[0-9.]+\s*$' then g.value || ' ms' else g.value end)::interval as span
          from given as g
    )
    select 'warn',
           format('%s of role %s is %s (set for %s): %s', c.name, c.rolname, lapse.doctor_span(c.span), c.origin,
                  case c.name when 'statement_timeout' then 'each call of lapse.run_due ends before that, and does less'
                              else 'a longer batch ends its session' end),
           format('alter role %I in database %I set %s = 0;', c.rolname, current_database(), c.name)
      from cut as c
     where c.span > interval '0' and c.span < c.least_of
    union all
    select 'ok',
           format('no limit cuts calls of lapse.run_due short (looked at: %s)',
                  (select string_agg(c.rolname, ', ' order by c.rolname) from (select rolname from callers order by rolname limit 10) as c)),
           null
$$;

comment on function lapse.doctor_timeouts(timestamptz) is
    'Check of lapse.doctor: statement_timeout and transaction_timeout of the roles that keep the schedule.';
