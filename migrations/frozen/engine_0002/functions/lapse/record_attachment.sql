-- lapse.record_attachment: write down what the catalog says of an attachment, and let it answer for its files.
--
-- In: the trigger function that lapse.attach_files has made. Out: the name of the file source. It is called with the
-- rights of whoever attaches, runs with the engine owner's and believes nobody: what is attached to which table is
-- read from the triggers; what was declared, from the function's source; and all functions must belong to the
-- table's owner and run with its rights. Who could make that true owns the table. LP035 where it is not so.
-- A WARNING where no worker has ever served the storage.

create or replace function lapse.record_attachment(p_function regprocedure)
    returns text
    language plpgsql
    volatile
    security definer  -- an owner of tables has no right on the engine's
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_new      lapse.attachment;
    v_declared jsonb;
    v_tables   oid[];
    v_owner    oid;
    v_function name;
    v_schema   name;
    v_parts    text[];
    v_whole    text;
begin
    select p.proowner, p.proname, n.nspname, substring(p.prosrc from '\n-- Declared: ({[^\n]*})\n')::jsonb
      into v_owner, v_function, v_schema, v_declared
      from pg_proc as p
      join pg_namespace as n on n.oid = p.pronamespace
     where p.oid = p_function and p.prosecdef and p.prorettype = 'trigger'::regtype and p.proname like 'lapse\_files\_%';

    v_tables := array(select t.tgrelid
                        from pg_trigger as t
                        join pg_class as c on c.oid = t.tgrelid
                       where t.tgfoid = p_function and t.tgname = v_function || '_delete' and not c.relispartition
                         and not lapse.on_detached(t.oid) and c.relowner = v_owner);
    v_parts := array(select f.part
                       from lapse.attachment_family(p_function) as f
                       join pg_proc as p on p.oid = f.function
                      where p.prosecdef and p.proowner = v_owner);

    if v_declared is null or cardinality(v_tables) <> 1 or not v_parts @> array['in_use', 'known', 'listed'] then
        raise exception 'function % is none that lapse.attach_files has made', p_function
            using errcode = 'LP035', hint = 'Call lapse.attach_files.';
    end if;

    v_new := jsonb_populate_record(null::lapse.attachment, v_declared);
    v_new.function := format('%I.%I', v_schema, v_function);
    v_new.attached_at := now();
    v_new.attached_by := pg_get_userbyid(v_owner);
    select format('%I.%I', n.nspname, c.relname), format('files_%s_%s_%s', n.nspname, c.relname, v_new.path_column)
      into v_new.target_table, v_whole
      from pg_class as c
      join pg_namespace as n on n.oid = c.relnamespace
     where c.oid = v_tables[1];

    -- What was attached under an earlier name of the function, the table or the column is this one now.
    delete from lapse.file_source as s
     using lapse.attachment as a
     where a.name = s.name
       and (a.function = v_new.function
            or a.target_table = v_new.target_table and a.path_column = v_new.path_column
            or to_regprocedure(a.function || '()') is null
               and (a.target_table = v_new.target_table or to_regclass(a.target_table) is null));

    v_new.name := regexp_replace(lower(v_whole), '[^a-z0-9_]', '_', 'g');
    if v_new.name <> v_whole or length(v_new.name) > 63 or exists (select from lapse.file_source as s where s.name = v_new.name) then
        v_new.name := left(v_new.name, 54) || '_'
                          || left(encode(lapse.path_digest(v_new.target_table || '.' || v_new.path_column), 'hex'), 8);
    end if;

    insert into lapse.file_source (name, in_use, known, listed, removed, storages)
    values (v_new.name,
            format('%I.%I', v_schema, v_function || '_in_use'),
            format('%I.%I', v_schema, v_function || '_known'),
            format('%I.%I', v_schema, v_function || '_listed'),
            case when v_new.removed_column is not null then format('%I.%I', v_schema, v_function || '_removed') end,
            case when v_new.storage is not null then array[v_new.storage] end);
    insert into lapse.attachment select v_new.*;

    if v_new.storage is not null and not exists (select from lapse.storage as s where s.name = v_new.storage) then
        raise warning 'no worker has ever served storage %', quote_literal(v_new.storage)
            using hint = 'If that is its name in the workers'' configuration, all is well: start one.';
    end if;

    return v_new.name;
end;
$$;

comment on function lapse.record_attachment(regprocedure) is
    'Internal: register what lapse.attach_files has made, as the catalog has it; returns the name of the file source.';
