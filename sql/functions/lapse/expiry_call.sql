-- lapse.expiry_call: the function that the step of a call policy hands its rows to.
--
-- In: the table, the policy's name, the function's name and the types of the key columns. Out: the name, quoted. Raises
-- LP026 where it is not there or takes something else, LP022 where it is somebody's who could
-- put another in its place: what it does it does with the rights of the table's owner.

create or replace function lapse.expiry_call(p_target regclass, p_policy text, p_function text, p_types text[])
    returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_name      text := lapse.quoted_name(p_function);
    v_arguments text := (select string_agg(t.name || '[]', ', ' order by t.place) from unnest(p_types) with ordinality as t (name, place));
    v_function  regprocedure;
    v_owner     name;
    v_belongs   name;
    v_super     boolean;
    v_kind      "char";
begin
    v_function := to_regprocedure(v_name || format('(%s)', v_arguments));
    select o.rolname into v_owner from pg_class as c join pg_roles as o on o.oid = c.relowner where c.oid = p_target;
    select o.rolname, o.rolsuper, p.prokind
      into v_belongs, v_super, v_kind
      from pg_proc as p
      join pg_roles as o on o.oid = p.proowner
     where p.oid = v_function;
    if not found or v_kind <> 'f' then
        raise exception using
            errcode = 'LP026',
            message = format('policy %s on table %s: there is no function %s(%s)', p_policy, p_target,
                             coalesce(v_name, p_function, 'NULL'), v_arguments),
            hint    = format('p_function is schema.name; it gets an array of the keys: create function %s(%s) returns void ...',
                             coalesce(v_name, 'app.archive'), v_arguments);
    end if;
    if v_belongs <> v_owner and not v_super then
        raise exception using
            errcode = 'LP022',
            message = format('policy %s: function %s belongs to %s and would run with the rights of %s, who owns table %s',
                             p_policy, v_function, v_belongs, v_owner, p_target),
            hint    = format('alter function %s owner to %I;', v_function, v_owner);
    end if;
    if not has_function_privilege(v_owner, v_function, 'EXECUTE') then
        raise exception using
            errcode = 'LP022',
            message = format('policy %s: role %s, who owns table %s, may not call %s', p_policy, v_owner, p_target, v_function),
            hint    = format('grant execute on function %s to %I;', v_function, v_owner);
    end if;
    return v_name;
end;
$$;

comment on function lapse.expiry_call(regclass, text, text, text[]) is
    'Internal: the quoted name of a call policy''s function; raises LP026 or LP022.';
