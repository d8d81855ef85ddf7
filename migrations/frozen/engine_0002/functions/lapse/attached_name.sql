-- lapse.attached_name: what the trigger function of an attachment is called.
--
-- In: the table, its path column, and the function that it has now (NULL: none). Out: schema.lapse_files_TABLE_COLUMN,
-- quoted where needed; with a digest in place of the end where that is too long for a name with what is put behind it,
-- or is another's: table a_b with column c makes the same as table a with column b_c.

create or replace function lapse.attached_name(p_target regclass, p_path_column text, p_function oid)
    returns text
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_schema oid;
    v_whole  text;
    v_short  text;
    v_digest text;
begin
    select c.relnamespace, format('lapse_files_%s_%s', c.relname, p_path_column),
           left(encode(lapse.path_digest(format('%I.%I', c.relname, p_path_column)), 'hex'), 8)
      into v_schema, v_whole, v_digest
      from pg_class as c
     where c.oid = p_target;

    if octet_length(v_whole) > 54
       or exists (select from pg_proc as p
                   where p.pronamespace = v_schema and p.proname = v_whole and p.oid is distinct from p_function) then
        v_short := v_whole;
        while octet_length(v_short) > 45 loop
            v_short := left(v_short, -1);
        end loop;
        v_whole := v_short || '_' || v_digest;
    end if;

    return format('%I.%I', (select n.nspname from pg_namespace as n where n.oid = v_schema), v_whole);
end;
$$;

comment on function lapse.attached_name(regclass, text, oid) is
    'Internal: the name of the trigger function of an attachment.';
