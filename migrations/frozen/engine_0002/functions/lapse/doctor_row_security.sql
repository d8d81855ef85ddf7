-- lapse.doctor_row_security: does row security hide rows from those who are to clean up?
--
-- In: the time. Out: findings for lapse.doctor, by lapse.hidden_rows, for the role that each
-- policy's step runs as: the engine's owner, or the step's own where it is SECURITY DEFINER. Its
-- runs fail, since a batch turns row_security off.

create or replace function lapse.doctor_row_security(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with targets as materialized (
        select distinct p.name, to_regclass(lapse.quoted_name(p.target_table)) as relation, r.rolname
          from lapse.policy as p
          join pg_namespace as n on n.nspname = 'lapse'
          left join pg_proc as f on f.oid = to_regprocedure(
               lapse.quoted_name(p.step) || '(integer, timestamp with time zone, timestamp with time zone)')
          join pg_roles as r on r.oid = case when f.prosecdef then f.proowner else n.nspowner end
         where p.enabled and p.target_table is not null
    )
    select 'fail',
           format('row security of %s hides rows from role %s, which runs policy %s: its runs fail', t.relation, t.rolname, t.name),
           h.statement
      from targets as t
     cross join lateral lapse.hidden_rows(t.relation, t.rolname) as h
    union all
    select 'ok', 'row security hides nothing from those who clean up', null
$$;

comment on function lapse.doctor_row_security(timestamptz) is
    'Check of lapse.doctor: row-level security that hides rows of a target from the role that runs its policy.';
