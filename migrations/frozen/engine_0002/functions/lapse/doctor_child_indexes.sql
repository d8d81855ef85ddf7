-- lapse.doctor_child_indexes: which foreign keys make deletions slow?
--
-- In: the time. Out: findings for lapse.doctor, by lapse.unindexed_children, for the targets of
-- policies that delete: declared ones that say so, and steps whose source does. Without an
-- index on the child the server reads all of it for each row that goes.

create or replace function lapse.doctor_child_indexes(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with targets as (
        select to_regclass(lapse.quoted_name(p.target_table)) as relation, string_agg(p.name, ', ' order by p.name) as policies
          from lapse.policy as p
          left join pg_proc as f on f.oid = to_regprocedure(
               lapse.quoted_name(p.step) || '(integer, timestamp with time zone, timestamp with time zone)')
         where p.enabled
           and p.target_table is not null
           and coalesce(p.action = 'delete', f.prosrc ~* '\mdelete\s+from\M')
         group by 1
    )
    select 'warn',
           format('%s refers to %s by %s (%s) without an index: each row that policy %s deletes reads all of it', c.child, t.relation,
                  c.constraint_name, array_to_string(c.columns, ', '), t.policies),
           c.statement
      from targets as t
     cross join lateral lapse.unindexed_children(t.relation) as c
     where t.relation is not null
    union all
    select 'ok', format('no foreign key slows the %s tables that policies delete from', count(*)), null
      from targets as t
$$;

comment on function lapse.doctor_child_indexes(timestamptz) is
    'Check of lapse.doctor: foreign keys without an index to tables that policies delete from.';
