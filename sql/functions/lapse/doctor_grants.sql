-- lapse.doctor_grants: can each role still do its job?
--
-- In: the time. Out: findings for lapse.doctor. New functions belong to nobody: after an upgrade
-- the grants have to be given again, and a role without one fails in the middle of its
-- work. A role is taken for a worker, runner, application or observer by one function that
-- it may call; what belongs to that job is what the lapse.grant_... of it names.

create or replace function lapse.doctor_grants(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with jobs (kind, mark) as (
        values ('grant_worker', 'exchange_files'), ('grant_runner', 'run_due'), ('grant_application', 'enqueue_files'),
               ('grant_observer', 'backlog')
    ),
    wanted as materialized (
        select j.kind, j.mark, p.oid, p.oid::regprocedure::text as routine
          from jobs as j
          join pg_proc as g on g.pronamespace = 'lapse'::regnamespace and g.proname = j.kind
         cross join lateral regexp_matches(g.prosrc, '''([a-z][a-z0-9_]*)''', 'g') as m (words)
          join pg_proc as p on p.pronamespace = 'lapse'::regnamespace and p.proname = m.words[1]
    ),
    holders as materialized (
        select distinct w.kind, r.oid, r.rolname
          from wanted as w
          join pg_proc as p on p.oid = w.oid and p.proname = w.mark
         cross join lateral aclexplode(p.proacl) as a
          join pg_roles as r on r.oid = a.grantee
         where a.privilege_type = 'EXECUTE' and r.oid <> p.proowner
    )
    select 'fail',
           format('role %s may not call %s%s, which %s gives now', h.rolname, min(w.routine),
                  case when count(*) > 1 then format(' and %s more', count(*) - 1) else '' end, 'lapse.' || h.kind),
           format('select lapse.%s(%L);', h.kind, h.rolname)
      from holders as h
      join wanted as w on w.kind = h.kind
     where not has_function_privilege(h.oid, w.oid, 'execute')
     group by h.kind, h.rolname
    union all
    select 'ok', format('%s roles have what their jobs need', count(distinct h.oid)), null
      from holders as h
$$;

comment on function lapse.doctor_grants(timestamptz) is
    'Check of lapse.doctor: roles that lack a right which their lapse.grant_... gives by now.';
