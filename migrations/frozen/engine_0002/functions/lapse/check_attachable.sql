-- lapse.check_attachable: can files be attached to this table, by this role?
--
-- In: the table. Out: nothing. LP035 with the reason and what to do: only its owner may, who must be allowed what the
-- triggers call; it is an ordinary or partitioned table, on disk, not one of several that inherit, with a key; its
-- rows are hidden from its owner by no row security; and the engine's owner can call what stands in its schema.

create or replace function lapse.check_attachable(p_target regclass)
    returns void
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_table  record;
    v_engine name := (select pg_get_userbyid(n.nspowner) from pg_namespace as n where n.nspname = 'lapse');
    v_wrong  text;
    v_hint   text;
begin
    if p_target is null then
        raise exception 'which table?'
            using errcode = 'LP001', hint = 'For example: select lapse.attach_files(''app.uploads'', ''path'', ''public'').';
    end if;

    select c.relkind, c.relpersistence, c.relowner, pg_get_userbyid(c.relowner) as owner, c.relispartition,
           c.relforcerowsecurity, n.nspname as schema, r.rolsuper or r.rolbypassrls as sees_all
      into v_table
      from pg_class as c
      join pg_namespace as n on n.oid = c.relnamespace
      join pg_roles as r on r.oid = c.relowner
     where c.oid = p_target;

    select w.wrong, w.hint
      into v_wrong, v_hint
      from (values
          (1, v_table.relkind not in ('r', 'p'),
           format('is %s, not a table', case v_table.relkind when 'v' then 'a view' when 'm' then 'a materialized view'
                                             when 'f' then 'a foreign table' else 'something else' end),
           'Attach the tables whose rows name the files.'),
          (2, v_table.relpersistence = 't', 'is temporary',
           'Its rows go without a trace at the end of the session; queue their files with lapse.enqueue_file.'),
          (3, v_table.schema in ('lapse', 'pg_catalog', 'information_schema'), 'is not yours', 'Attach a table of your own.'),
          (4, not pg_has_role(current_user, v_table.relowner, 'USAGE'), format('belongs to %s', v_table.owner),
           format('Call this as %I: the triggers run with its rights.', v_table.owner)),
          (5, v_table.relispartition, 'is a partition',
           format('Attach the whole table: %s.', (select min(a.relid::regclass::text) from pg_partition_ancestors(p_target) as a
                                                   join pg_class as c on c.oid = a.relid where not c.relispartition))),
          (6, v_table.relkind = 'r' and not v_table.relispartition
                  and exists (select from pg_inherits as i where p_target in (i.inhparent, i.inhrelid)),
           'inherits or is inherited from',
           'What happens to a child does not fire its parent''s triggers. Use declarative partitioning, or detach it: alter table ... no inherit ...'),
          (7, exists (select from pg_partition_tree(p_target) as t join pg_class as c on c.oid = t.relid
                       where v_table.relkind = 'p' and c.relkind = 'f'),
           'has a partition that is a foreign table', 'A foreign table''s triggers see no transition tables: detach it.'),
          (8, exists (select from pg_partition_tree(p_target) as t join pg_class as c on c.oid = t.relid
                       where v_table.relkind = 'p' and c.relowner <> v_table.relowner),
           'has a partition that belongs to another role', format('Give it to %I: alter table ... owner to ...', v_table.owner)),
          (9, v_table.relforcerowsecurity and not v_table.sees_all,
           'hides rows from its owner: row security is forced',
           'A file would be deleted while a hidden row needs it: alter table ... no force row level security.'),
          (10, not exists (select from lapse.table_key(p_target)), 'has no key',
           'Give it a primary key, or a unique index on columns that are not null.'),
          (11, not has_schema_privilege(v_table.relowner, 'lapse', 'usage')
                   or not has_function_privilege(v_table.relowner,
                          'lapse.enqueue_paths(text[], text[], timestamptz, text, text, text[], timestamptz[])', 'execute')
                   or not has_function_privilege(v_table.relowner, 'lapse.need_file(text, text)', 'execute')
                   or not has_function_privilege(v_table.relowner, 'lapse.need_files(text[], text[])', 'execute')
                   or not has_function_privilege(v_table.relowner, 'lapse.cancel_files(text[], text[])', 'execute')
                   or not has_function_privilege(v_table.relowner, 'lapse.nudge_workers(timestamptz)', 'execute')
                   or not has_function_privilege(v_table.relowner, 'lapse.path_digest(text)', 'execute')
                   or not has_column_privilege(v_table.relowner, 'lapse.file_cleanup_queue', 'generation', 'insert'),
           format('belongs to %s, which may not queue files', v_table.owner),
           format('As the owner of schema lapse: select lapse.grant_author(%L);', v_table.owner)),
          (12, not has_schema_privilege(v_table.relowner, v_table.schema, 'create'),
           format('belongs to %s, which may create no function in schema %s', v_table.owner, v_table.schema),
           format('grant create on schema %I to %I;', v_table.schema, v_table.owner)),
          (13, not has_schema_privilege(v_engine, v_table.schema, 'usage'),
           format('is in schema %s, which pglapse (role %s) may not use', v_table.schema, v_engine),
           format('grant usage on schema %I to %I;', v_table.schema, v_engine))
      ) as w (place, is_wrong, wrong, hint)
     where w.is_wrong
     order by w.place
     limit 1;

    if found then
        raise exception 'files can''t be attached to %: it %', p_target, v_wrong
            using errcode = 'LP035', hint = v_hint;
    end if;
end;
$$;

comment on function lapse.check_attachable(regclass) is
    'Internal: raise LP035 with a hint unless files can be attached to a table by the caller.';
