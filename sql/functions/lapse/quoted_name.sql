-- lapse.quoted_name: a schema-qualified name, ready to stand in dynamic SQL.
--
-- In: 'schema.name', either part quoted where it needs to be. Out: the same two
-- parts, quoted by format; NULL for anything else, also for one or three parts.
-- Policies keep names as text (pg_upgrade refuses columns of reg* types), so
-- this is the one place where such a text becomes part of a statement.

create or replace function lapse.quoted_name(p_name text)
    returns text
    language plpgsql
    immutable
    strict
    parallel safe
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_parts text[];
begin
    v_parts := parse_ident(p_name);
    if cardinality(v_parts) <> 2 then
        return null;
    end if;
    return format('%I.%I', v_parts[1], v_parts[2]);
exception
    when invalid_parameter_value then
        return null;
end;
$$;

comment on function lapse.quoted_name(text) is
    'A schema.name as format quotes it; NULL for what is not two identifiers.';
