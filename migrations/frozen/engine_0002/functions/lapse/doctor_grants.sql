-- lapse.doctor_grants: can each role still do its job?
--
-- In: the time. Out: findings for lapse.doctor. New functions and views belong to nobody: after an upgrade
-- the grants have to be given again, and a role without one fails in the middle of its
-- work. A role is taken for a worker, runner, application, observer or author by one function that
-- it may call, and for one whose steps run by a declared policy on its table; what belongs to that job is what
-- the lapse.grant_... of it names.

create or replace function lapse.doctor_grants(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with jobs (kind, mark) as (
        values ('grant_worker', 'exchange_files'), ('grant_runner', 'run_due'), ('grant_application', 'enqueue_files'),
               ('grant_observer', 'backlog'), ('grant_author', 'create_expiry'), ('grant_step', null)
    ),
    bodies as materialized (
        select j.kind, j.mark, g.prosrc
          from jobs as j
          join pg_proc as g on g.pronamespace = 'lapse'::regnamespace and g.proname = j.kind
    ),
    routines as materialized (
        select distinct b.kind, p.oid, p.oid::regprocedure::text as name
          from bodies as b
         cross join lateral regexp_matches(b.prosrc, '''([a-z][a-z0-9_]*)''', 'g') as m (words)
          join pg_proc as p on p.pronamespace = 'lapse'::regnamespace and p.proname = m.words[1]
    ),
    relations as materialized (
        select b.kind, c.oid, m.words[1] as privilege, k.name as column_name
          from bodies as b
         cross join lateral regexp_matches(b.prosrc, '''grant (select|insert) (?:\(([a-z_, ]+)\))?[^a-z]*on lapse\.([a-z_]+) to',
                                           'g') as m (words)
          join pg_class as c on c.relnamespace = 'lapse'::regnamespace and c.relname = m.words[3]
         cross join lateral regexp_split_to_table(coalesce(m.words[2], ''), ', ') as k (name)
        union all
        select 'grant_observer', c.oid, 'select', ''
          from pg_class as c
         where c.relnamespace = 'lapse'::regnamespace and c.relkind = 'v'
    ),
    holders as materialized (
        select distinct b.kind, r.oid, r.rolname
          from bodies as b
          join pg_proc as p on p.pronamespace = 'lapse'::regnamespace and p.proname = b.mark
         cross join lateral aclexplode(p.proacl) as a
          join pg_roles as r on r.oid = a.grantee
         where a.privilege_type = 'EXECUTE' and r.oid <> p.proowner
        union
        select 'grant_step', r.oid, r.rolname
          from lapse.policy as p
          join pg_class as c on c.oid = to_regclass(lapse.quoted_name(p.target_table))
          join pg_roles as r on r.oid = c.relowner
         where p.action is not null
    ),
    lacks as (
        select h.kind, h.rolname, format('call %s', w.name) as what
          from holders as h
          join routines as w on w.kind = h.kind
         where not has_function_privilege(h.oid, w.oid, 'execute')
        union all
        select h.kind, h.rolname, case w.privilege when 'select' then format('read %s', w.oid::regclass)
                                       else format('insert into %s', w.oid::regclass) end
          from holders as h
          join relations as w on w.kind = h.kind
         where not case when w.column_name = '' then has_table_privilege(h.oid, w.oid, w.privilege)
                        else has_column_privilege(h.oid, w.oid, w.column_name, w.privilege) end
         group by h.kind, h.rolname, w.oid, w.privilege
        union all
        select h.kind, h.rolname, 'use schema lapse'
          from holders as h
         where not has_schema_privilege(h.oid, 'lapse', 'usage')
    )
    select 'fail',
           format('role %s may not %s%s, which %s gives now', l.rolname, min(l.what),
                  case when count(*) > 1 then format(' and %s more', count(*) - 1) else '' end, 'lapse.' || l.kind),
           format('select lapse.%s(%L);', l.kind, l.rolname)
      from lacks as l
     group by l.kind, l.rolname
    union all
    select 'ok', format('%s roles have what their jobs need', count(distinct h.oid)), null
      from holders as h
$$;

comment on function lapse.doctor_grants(timestamptz) is
    'Check of lapse.doctor: roles that lack a right which their lapse.grant_... gives by now.';
