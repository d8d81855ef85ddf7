-- lapse.doctor_partitions: does each partition have the triggers of the others?
--
-- In: the time. Out: findings for lapse.doctor. A statement's triggers are those of the table that
-- it names: one on a partition fires none of its parent's, and a partition that was made
-- later has none of its sisters'. Triggers for each row a parent passes on by itself. Those of
-- lapse.attach_files are lapse.doctor_attachments' business.

create or replace function lapse.doctor_partitions(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with members as materialized (
        select r.oid as root, t.relid::oid as relation, t.isleaf
          from (select distinct pg_partition_root(o.relation)::oid as oid from lapse.own_triggers() as o) as r
         cross join lateral pg_partition_tree(r.oid) as t
    ),
    have as materialized (
        select m.root, m.relation, g.tgfoid, g.tgtype, min(g.oid) as trigger
          from members as m
          join pg_trigger as g on g.tgrelid = m.relation
          join lapse.own_triggers() as o on o.trigger = g.oid
         where not exists (select from lapse.attachment as a where to_regprocedure(a.function || '()') = g.tgfoid)
         group by m.root, m.relation, g.tgfoid, g.tgtype
    ),
    wanted as (
        select h.root, h.tgfoid, h.tgtype, min(h.trigger) as trigger from have as h group by h.root, h.tgfoid, h.tgtype
    )
    select 'fail',
           format('%I.%I has not the trigger %s, as other tables of %s have: what changes there queues no file', n.nspname, c.relname,
                  s.tgname, (select format('%I.%I', rn.nspname, rc.relname) from pg_class as rc join pg_namespace as rn on rn.oid = rc.relnamespace
                              where rc.oid = w.root)),
           replace(pg_get_triggerdef(s.oid), format(' ON %I.%I ', sn.nspname, sc.relname), format(' ON %I.%I ', n.nspname, c.relname)) || ';'
      from wanted as w
      join pg_trigger as s on s.oid = w.trigger
      join pg_class as sc on sc.oid = s.tgrelid
      join pg_namespace as sn on sn.oid = sc.relnamespace
      join members as m on m.root = w.root and (m.isleaf or w.tgtype & 1 = 0)
      join pg_class as c on c.oid = m.relation
      join pg_namespace as n on n.oid = c.relnamespace
     where not exists (select from have as h
                        where h.relation = m.relation and h.tgfoid = w.tgfoid and h.tgtype = w.tgtype)
    union all
    select 'ok', format('%s partitions have the triggers that they should have', count(*)), null
      from members as m
     where m.isleaf and m.relation <> m.root
$$;

comment on function lapse.doctor_partitions(timestamptz) is
    'Check of lapse.doctor: partitions without the triggers of their sisters.';
