-- lapse.check_expiry_target: may a declared policy work on this table, and may its caller say so?
--
-- In: the table and the policy's name. Out: nothing when all is well; a warning where one partition is named
-- alone. Raises LP020 for what is no table that rows can be swept from, LP022 where a right is missing,
-- LP025 where row-level security would hide rows from the step, each with what to do. Reads the catalog alone.
--
-- The step runs with the rights of the table's owner, whoever calls. Hence the one right that counts is to act
-- as that owner: superusers and members may, and nobody else, whatever has been granted on the table.

create or replace function lapse.check_expiry_target(p_target regclass, p_policy text)
    returns void
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_class  record;
    v_engine name;
    v_wrong  text;
    v_hint   text;
    v_code   text;
begin
    select c.oid, c.relname, c.relkind, c.relpersistence, c.relispartition, c.relrowsecurity, c.relforcerowsecurity,
           c.relowner, n.nspname, o.rolname as owner, o.rolsuper, o.rolbypassrls,
           format('%I.%I', n.nspname, c.relname) as name
      into v_class
      from pg_class as c
      join pg_namespace as n on n.oid = c.relnamespace
      join pg_roles as o on o.oid = c.relowner
     where c.oid = p_target;
    if not found then
        raise exception using
            errcode = 'LP020',
            message = format('policy %s needs a table', p_policy),
            hint    = 'Name it in p_target: ''schema.table''.';
    end if;
    select r.rolname into v_engine from pg_namespace as n join pg_roles as r on r.oid = n.nspowner where n.nspname = 'lapse';

    select w.code, w.wrong, w.hint
      into v_code, v_wrong, v_hint
      from (values
          (v_class.relkind in ('v', 'm'), 'LP020', 'is a view, and a view has no rows of its own',
           'Name the table below it.'),
          (v_class.relkind = 'f', 'LP020', 'is a foreign table: its rows are another server''s, and can''t be locked from here',
           'Install pglapse over there.'),
          (v_class.relkind not in ('r', 'p', 'v', 'm', 'f'), 'LP020', 'is not a table', 'Name a table.'),
          (v_class.relpersistence = 't', 'LP020', 'is a temporary table, which no other session can read',
           'Name a table that lasts.'),
          (v_class.nspname in ('pg_catalog', 'information_schema') or v_class.nspname like 'pg\_toast%', 'LP020',
           'belongs to PostgreSQL itself', 'Name a table of your own.'),
          (v_class.nspname = 'lapse', 'LP020', 'is pglapse''s own, and keeps itself small',
           'Its spans are in lapse.setting.'),
          (v_class.relkind = 'r' and exists (select from pg_inherits as i where i.inhparent = v_class.oid), 'LP020',
           'has tables that inherit from it, so that its key may stand for rows in several of them',
           'Make it a partitioned table, or declare a policy for each of the tables below it.'),
          (v_class.relkind = 'p' and exists (select from pg_partition_tree(v_class.oid) as t
                                               join pg_class as l on l.oid = t.relid
                                              where l.relkind = 'f'), 'LP020',
           'has partitions that are foreign tables, whose rows can''t be locked from here',
           'Declare a policy for each of the other partitions.'),
          (not pg_has_role(v_class.relowner, 'USAGE'), 'LP022',
           format('belongs to role %s, and %s may not act for it', v_class.owner, current_user),
           format('Only its owner decides what lapses: declare the policy as role %s.', v_class.owner)),
          (not (select r.rolsuper from pg_roles as r where r.rolname = current_user)
               and not has_schema_privilege(v_class.relowner, v_class.nspname::text, 'CREATE'), 'LP022',
           format('belongs to role %s, which may not make the step''s function in schema %s', v_class.owner, v_class.nspname),
           format('As the owner of that schema: grant create on schema %I to %I;', v_class.nspname, v_class.owner)),
          (not has_schema_privilege(v_engine, v_class.nspname::text, 'USAGE'), 'LP022',
           format('lies in schema %s, where the engine''s owner %s can''t call its step', v_class.nspname, v_engine),
           format('As the owner of that schema: grant usage on schema %I to %I;', v_class.nspname, v_engine)),
          (v_class.relrowsecurity and v_class.relforcerowsecurity and not v_class.rolsuper and not v_class.rolbypassrls, 'LP025',
           format('has row-level security that is forced on its owner %s: rows that it hides would never lapse', v_class.owner),
           format('Let its owner see all rows: alter table %s no force row level security; or alter role %I bypassrls;',
                  v_class.name, v_class.owner))
      ) as w (is_wrong, code, wrong, hint)
     where w.is_wrong
     limit 1;
    if found then
        raise exception using
            errcode = v_code,
            message = format('policy %s: %s %s', p_policy, v_class.name, v_wrong),
            hint    = v_hint;
    end if;

    if v_class.relispartition then
        raise warning using
            message = format('policy %s: %s is one partition of %s: rows of the others are left alone',
                             p_policy, v_class.name, pg_partition_root(v_class.oid)),
            hint    = format('If all of them are meant, name %s.', pg_partition_root(v_class.oid));
    end if;
end;
$$;

comment on function lapse.check_expiry_target(regclass, text) is
    'Internal: raises LP020, LP022 or LP025 where a declared policy can''t or may not work on a table.';
