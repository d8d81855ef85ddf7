-- lapse.make_attachment: make the functions and triggers of an attachment.
--
-- In: the table, and the attachment, checked. Out: nothing. What is there already is replaced. All functions belong to
-- the table's owner and run with its rights; those of the file source may be called by it and by the engine's owner,
-- and by nobody else. The caller's own rights suffice, or the database's own errors are raised.

create or replace function lapse.make_attachment(p_target regclass, p_attachment lapse.attachment)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    c_settings constant text := 'security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off '
                                'set jit = off set row_security = off';
    -- How a key is spelled, and what a condition says, must not hang on whose session it is: the application's or
    -- the worker's. Where neither could, the settings are left out, since each statement pays for them.
    c_spelling constant text := ' set timezone = ''UTC'' set datestyle = ''ISO'' set intervalstyle = ''postgres'' '
                                'set bytea_output = ''hex'' set extra_float_digits = 1 '
                                'set standard_conforming_strings = on set transform_null_equals = off';
    v_settings text := c_settings || case
        when p_attachment.live_when is not null or p_attachment.due is not null
             or exists (select from lapse.table_key(p_target) as k
                          join pg_attribute as a on a.attrelid = p_target and a.attname = k.name
                         where a.atttypid <> all ('{int2,int4,int8,uuid,text,varchar,bpchar,numeric}'::regtype[]))
        then c_spelling else '' end;
    v_owner    name := (select pg_get_userbyid(c.relowner) from pg_class as c where c.oid = p_target);
    v_engine   name := (select pg_get_userbyid(n.nspowner) from pg_namespace as n where n.nspname = 'lapse');
    v_name     text := (parse_ident(p_attachment.function))[2];
    v_part     record;
    v_code     text;
    v_relation record;
    v_event    record;
begin
    for v_part in
        select w.part, w.arguments, w.result, w.comment,
               format('%I.%I', (parse_ident(p_attachment.function))[1],
                      v_name || case w.part when '' then '' else '_' || w.part end) as function
          from (values
              ('', '', 'trigger', 'Trigger: queue the files that rows name no more, and save those that are named again.'),
              ('renamed', '', 'trigger', 'Trigger: a row that is given another file has a file again.'),
              ('in_use', 'p_storages text[], p_paths text[]', 'table (storage text, path text, until timestamptz)',
               'File source: those of the files that a row still needs, and until when.'),
              ('known', 'p_storages text[], p_paths text[]', 'table (storage text, path text)',
               'File source: those of the files that a row speaks of.'),
              ('listed', 'p_storage text, p_after text, p_limit integer', 'table (path text)',
               'File source: the files of a storage that rows speak of, page by page.'),
              ('removed', 'p_storages text[], p_paths text[], p_claimed_at timestamptz[]', 'table (storage text, path text)',
               'File source: note that files are gone; returns those whose rows are locked.')
          ) as w (part, arguments, result, comment)
         where w.part not in ('removed', 'renamed') or p_attachment.removed_column is not null
    loop
        v_code := case v_part.part
            when '' then lapse.attachment_trigger_code(p_attachment)
            when 'renamed' then format(
                '%s-- %s: a row that is given another file has a file again.%s-- Made by lapse.attach_files.%s'
                'begin%s    new.%I := null;%s    return new;%send;%s',
                chr(10), v_part.function, chr(10), chr(10) || chr(10), chr(10), p_attachment.removed_column,
                chr(10), chr(10), chr(10))
            else lapse.attachment_source_code(p_attachment, v_part.part)
        end;

        execute format('create or replace function %s(%s) returns %s language %s volatile %s as %L',
                       v_part.function, v_part.arguments, v_part.result,
                       case when v_part.result = 'trigger' or v_part.part = 'in_use' and p_attachment.lookup is null
                            then 'plpgsql' else 'sql' end,
                       v_settings, v_code);
        execute format('comment on function %s(%s) is %L', v_part.function, v_part.arguments, v_part.comment);
        if v_owner <> current_user then
            execute format('alter function %s(%s) owner to %I', v_part.function, v_part.arguments, v_owner);
        end if;
        execute format('revoke all on function %s(%s) from public', v_part.function, v_part.arguments);
        execute format('grant execute on function %s(%s) to %I', v_part.function, v_part.arguments, v_owner);
        if v_part.result <> 'trigger' and v_engine <> v_owner then
            execute format('grant execute on function %s(%s) to %I', v_part.function, v_part.arguments, v_engine);
        end if;
    end loop;

    for v_relation in
        select r.relation, r.holds_rows from lapse.attached_relations(p_target) as r order by r.relation::oid
    loop
        for v_event in
            select w.event, w.clause, w.comment
              from (values
                  ('insert', 'after insert on %s referencing new table as new_rows', 'A file that a row names is saved.'),
                  ('update', 'after update on %s referencing old table as old_rows new table as new_rows',
                   'A replaced path is queued; the one in its place is saved.'),
                  ('delete', 'after delete on %s referencing old table as old_rows', 'A deleted row''s file is queued.'),
                  ('truncate', 'before truncate on %s', 'TRUNCATE queues all files.')
              ) as w (event, clause, comment)
             where w.event <> 'truncate' or v_relation.holds_rows
        loop
            execute format('create or replace trigger %I ' || v_event.clause || ' for each statement execute function %s()',
                           v_name || '_' || v_event.event, v_relation.relation, p_attachment.function);
            execute format('comment on trigger %I on %s is %L', v_name || '_' || v_event.event, v_relation.relation,
                           v_event.comment || case when v_relation.relation <> p_target then ' On a partition.' else '' end);
        end loop;
    end loop;

    -- A partition that was detached since keeps its triggers, and they are not its own.
    for v_relation in
        select t.tgrelid::regclass as relation, t.tgname
          from pg_trigger as t
          join pg_class as c on c.oid = t.tgrelid
         where t.tgfoid = to_regprocedure(p_attachment.function || '()') and lapse.on_detached(t.oid)
           and pg_has_role(c.relowner, 'USAGE')
         order by t.tgrelid, t.tgname
    loop
        execute format('drop trigger %I on %s', v_relation.tgname, v_relation.relation);
    end loop;

    if p_attachment.removed_column is not null then
        execute format(
            'create or replace trigger %1$I before update on %2$s for each row '
            'when ((new.%3$I is distinct from old.%3$I or new.%4$I is distinct from old.%4$I) '
            'and old.%5$I is not null and new.%5$I is not distinct from old.%5$I) execute function %6$s()',
            v_name || '_renamed', p_target, p_attachment.path_column,
            coalesce(p_attachment.storage_column, p_attachment.path_column), p_attachment.removed_column,
            format('%I.%I', (parse_ident(p_attachment.function))[1], v_name || '_renamed'));
        execute format('comment on trigger %I on %s is %L', v_name || '_renamed', p_target, 'A new path is a new file.');
    end if;
end;
$$;

comment on function lapse.make_attachment(regclass, lapse.attachment) is
    'Internal: make the functions and triggers of an attachment.';
