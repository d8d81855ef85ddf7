-- lapse.doctor_index_proofs: does an index take each policy to its due rows?
--
-- In: the time. Out: findings for lapse.doctor, by lapse.index_proof, which plans the exact
-- statement and executes nothing. A table that is locked at this moment can't be judged, and
-- that is no failure. Nor can an unlogged one be on a standby, where nobody can read it.

create or replace function lapse.doctor_index_proofs(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    with proofs as materialized (
        select p.name, i.ok, i.index_name, i.problem, i.statement
          from lapse.policy as p
         cross join lateral lapse.index_proof(p.name) as i
         where p.enabled and p.target_table is not null
           and not (pg_is_in_recovery()
                    and exists (select from pg_class as c
                                 where c.oid = to_regclass(lapse.quoted_name(p.target_table)) and c.relpersistence = 'u'))
    )
    select case when i.problem like '% is locked: %' then 'warn' else 'fail' end,
           format('no index serves policy %s: %s', i.name, i.problem),
           coalesce(replace(i.statement, chr(10), ' '), format('select * from lapse.index_proof(%L);', i.name))
      from proofs as i
     where i.ok is not true
    union all
    select 'ok', format('an index serves each of the %s policies that work on a table', count(*)), null
      from proofs as i
$$;

comment on function lapse.doctor_index_proofs(timestamptz) is
    'Check of lapse.doctor: whether an index takes each policy to the rows that are due.';
