-- lapse.attachment_findings: what is wrong with attached tables, and the command that mends it.
--
-- In: nothing. Out: a row a finding: the table, its path column, the problem, the command. For `pglapse doctor` and for
-- people. It only reads catalogs and the engine's tables, and waits for nothing.

create or replace function lapse.attachment_findings()
    returns table (target_table text, path_column text, problem text, command text)
    language sql
    stable
    security definer  -- whoever looks need not see the engine's tables
    set search_path = pg_catalog, pg_temp
as $$
    with attached as materialized (
        select a.target_table, a.path_column, a.storage, a.storage_column, to_regclass(a.target_table) as oid,
               to_regprocedure(a.function || '()') as function, a.lookup, (parse_ident(a.function))[2] as name,
               lapse.attachment_call(a) as call
          from lapse.attachment as a
    )
    select a.target_table, a.path_column, 'the table is not there: dropped or renamed; none of its files is deleted',
           'select lapse.detach_dropped();  -- if renamed, call lapse.attach_files for the new name with p_replace => true'
      from attached as a where a.oid is null
    union all
    select a.target_table, a.path_column, 'its column is not there, so statements that change the table fail',
           format('select lapse.attach_files(%L, ''the new column'', ..., p_replace => true);', a.target_table)
      from attached as a
     where a.oid is not null
       and not exists (select from pg_attribute as c where c.attrelid = a.oid and c.attname = a.path_column and not c.attisdropped)
    union all
    select a.target_table, a.path_column, format('changes of %s queue no file: it has no trigger for %s', r.relation, e.event), a.call
      from attached as a
     cross join lapse.attached_relations(a.oid) as r
     cross join unnest(array['insert', 'update', 'delete', 'truncate']) as e (event)
     where a.oid is not null
       and (e.event <> 'truncate' or r.holds_rows)
       and not exists (select from pg_trigger as t
                        where t.tgrelid = r.relation and t.tgname = a.name || '_' || e.event and t.tgfoid = a.function)
    union all
    select distinct a.target_table, a.path_column,
           format('%s was detached and still has its triggers: whether its rows need a file is asked of nobody', t.tgrelid::regclass), a.call
      from attached as a
      join pg_trigger as t on t.tgfoid = a.function
     where lapse.on_detached(t.oid)
    union all
    select a.target_table, a.path_column, format('trigger %s of %s is disabled', t.tgname, t.tgrelid::regclass),
           format('alter table %s enable trigger %I;', t.tgrelid::regclass, t.tgname)
      from attached as a
      join pg_trigger as t on t.tgfoid = a.function and t.tgenabled not in ('O', 'A')
    union all
    select a.target_table, a.path_column, 'no index finds the rows that name a file', i.missing || chr(10) || a.call
      from attached as a
     cross join lapse.attachment_index(a.oid, a.storage_column, a.path_column) as i
     where a.oid is not null and i.missing is not null and (a.lookup is null or i.lookup is null)
    union all
    select a.target_table, a.path_column, 'there is an index now, but nothing uses it yet: none of its files is deleted', a.call
      from attached as a
     cross join lapse.attachment_index(a.oid, a.storage_column, a.path_column) as i
     where a.lookup is null and i.lookup is not null
    union all
    select a.target_table, a.path_column, 'row security is forced, so the owner does not see which rows need a file',
           format('alter table %s no force row level security;', a.target_table)
      from attached as a
      join pg_class as c on c.oid = a.oid
      join pg_roles as r on r.oid = c.relowner
     where c.relforcerowsecurity and not r.rolsuper and not r.rolbypassrls
    union all
    select a.target_table, a.path_column, format('no worker has ever served storage %L', a.storage),
           'pglapse worker  -- with [storage.NAME] in pglapse.toml'
      from attached as a
     where a.storage is not null and not exists (select from lapse.storage as s where s.name = a.storage)
$$;

comment on function lapse.attachment_findings() is
    'What is wrong with attached tables, and the command that mends it.';
