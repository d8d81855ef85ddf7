-- lapse.build_attachment_index: create the index by which the rows that name a file are found, now.
--
-- In: the table, its column with the storage (NULL: all in one), the one with the path, and the attachment's trigger
-- function, for the name. Out: the index's name, schema.name. Writers wait meanwhile. LP037 where a role that writes to
-- the table would fail from then on: an index's expression is worked out with the writer's rights.

create or replace function lapse.build_attachment_index(
    p_target         regclass,
    p_storage_column text,
    p_path_column    text,
    p_function       text
)
    returns text
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_name text := (parse_ident(p_function))[2] || '_idx';
    v_role name;
begin
    select r.rolname
      into v_role
      from pg_class as c
     cross join lateral aclexplode(c.relacl) as a
      join pg_roles as r on r.oid = a.grantee
     where c.oid = p_target and a.privilege_type in ('INSERT', 'UPDATE')
       and not has_function_privilege(a.grantee, 'lapse.path_digest(text)', 'execute')
     limit 1;
    if found then
        raise exception 'role % writes to table % and may not call lapse.path_digest, which the index needs', v_role, p_target
            using errcode = 'LP037', hint = format('As the owner of schema lapse: select lapse.grant_application(%L);', v_role);
    end if;

    execute format('create index %I on %s (%s%s)', v_name, p_target, coalesce(quote_ident(p_storage_column) || ', ', ''),
                   (select format(case when a.atttypid = 'text'::regtype then 'lapse.path_digest(%I)'
                                       else 'lapse.path_digest((%I)::text)' end, a.attname)
                      from pg_attribute as a where a.attrelid = p_target and a.attname = p_path_column));
    execute format('comment on index %I.%I is %L', (parse_ident(p_function))[1], v_name,
                   'Made by lapse.attach_files: finds the rows that name a file. By digest, since a long path does not fit an index entry.');

    return format('%I.%I', (parse_ident(p_function))[1], v_name);
end;
$$;

comment on function lapse.build_attachment_index(regclass, text, text, text) is
    'Internal: create the index by which the rows that name a file are found; returns its name.';
