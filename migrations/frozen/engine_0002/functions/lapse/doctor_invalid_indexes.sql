-- lapse.doctor_invalid_indexes: which indexes of our tables and of targets are no use?
--
-- In: the time. Out: findings for lapse.doctor. A CREATE INDEX CONCURRENTLY that broke off leaves
-- an index that costs every write and serves no read: the plan that was proved is gone. One that
-- is being built at this moment is no trouble.

create or replace function lapse.doctor_invalid_indexes(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select case when w.ours then 'fail' else 'warn' end,
           format('index %I.%I on %s is not valid: a build broke off; it serves no query', s.nspname, c.relname, w.name),
           case
               when c.relname ~ '_cc(new|old)\d*$' then format('drop index concurrently %I.%I;', s.nspname, c.relname)
               when c.relkind = 'I' then format('attach an index of each partition: alter index %I.%I attach partition ...', s.nspname, c.relname)
               else format('reindex index concurrently %I.%I;', s.nspname, c.relname)
           end
      from lapse.watched_tables() as w
      join pg_index as i on i.indrelid = w.relation
      join pg_class as c on c.oid = i.indexrelid
      join pg_namespace as s on s.oid = c.relnamespace
     where not (i.indisvalid and i.indisready and i.indislive)
       and not exists (select from pg_stat_progress_create_index as b where b.index_relid = i.indexrelid)
    union all
    select 'ok', 'all indexes of our tables and of policies'' targets are valid', null
$$;

comment on function lapse.doctor_invalid_indexes(timestamptz) is
    'Check of lapse.doctor: indexes that a broken build left behind.';
