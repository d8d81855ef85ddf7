-- lapse.check_file_source_function: is this a function that a file source may have?
--
-- In: its name, schema.function, the types of its arguments, and what it must return, both as
-- format_type and pg_get_function_result say them.
-- Out: the name, quoted where needed. LP001 when there is none such, LP010 when it would run
-- another role's code with the engine owner's rights.

create or replace function lapse.check_file_source_function(p_function text, p_arguments text, p_result text)
    returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_parts    text[];
    v_function record;
begin
    begin
        v_parts := parse_ident(p_function);
    exception when invalid_parameter_value then
        v_parts := null;
    end;

    if v_parts is null or cardinality(v_parts) <> 2 then
        raise exception '% is not the name of a function', coalesce(quote_literal(p_function), 'NULL')
            using errcode = 'LP001', hint = 'Give it with its schema: schema.function.';
    end if;

    select p.prosecdef, p.proowner, pg_get_function_result(p.oid) as result,
           (select e.nspowner from pg_namespace as e where e.nspname = 'lapse') as engine_owner
      into v_function
      from pg_proc as p
      join pg_namespace as n on n.oid = p.pronamespace
     where n.nspname = v_parts[1] and p.proname = v_parts[2]
       and p.prokind = 'f'
       and p_arguments = (select string_agg(format_type(a.type, null), ', ' order by a.position)
                            from unnest(p.proargtypes) with ordinality as a (type, position));

    if v_function is null or v_function.result <> p_result then
        raise exception 'there is no function %(%) that returns %', p_function, p_arguments, p_result
            using errcode = 'LP001',
                  hint = format('Create it first: create function %s(%s) returns %s ...', p_function, p_arguments, p_result);
    end if;

    if not v_function.prosecdef and v_function.proowner <> v_function.engine_owner then
        raise exception 'function % would run with the engine owner''s rights, but belongs to another role', p_function
            using errcode = 'LP010', hint = 'Make it SECURITY DEFINER, or give it to the owner of schema lapse.';
    end if;

    return format('%I.%I', v_parts[1], v_parts[2]);
end;
$$;

comment on function lapse.check_file_source_function(text, text, text) is
    'Internal: check a file source''s function; returns its quoted name.';
