-- lapse.attach_files: from now on, the files of this table's rows go with them.
--
-- In: the table; its column with the path; the storage of all its files, or the column that names each file's; and, if
-- wanted: the state in which a row needs its file, as a condition over its columns (NULL, true: needed); how long
-- a file is kept after it was given up, for all reasons and for some (deleted, replaced, truncated, ended); a timestamptz
-- column that is told when the file was deleted; when the file of a row that does not need it may go, as an
-- expression over its columns (NULL: after its grace). Then what to do where no index finds a row by its file (require:
-- refuse; build: create it now; later: attach, but no file of these storages goes before it is there), and whether to
-- replace an attachment of that column. Out: the name of the file source that answers for the table.
-- Errors: LP001, LP002, LP035 (table or column), LP036 (condition), LP037 (index), LP038 (attached already); then
-- nothing is made.
--
-- It makes one trigger function and three or four functions of a file source, in the table's schema, which belong to
-- the table's owner and run with its rights; and triggers on the table and each of its partitions. All this is done
-- with the caller's own rights. What goes into the engine's tables goes through lapse.record_attachment, which
-- believes the catalog alone.

create or replace function lapse.attach_files(
    p_target         regclass,
    p_path_column    text,
    p_storage        text     default null,
    p_storage_column text     default null,
    p_live_when      text     default null,
    p_grace          interval default '0',
    p_graces         jsonb    default '{}',
    p_removed_column text     default null,
    p_due            text     default null,
    p_index          text     default 'require',
    p_replace        boolean  default false
)
    returns text
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set standard_conforming_strings = on
as $$
declare
    v_new     lapse.attachment;
    v_old     record;
    v_missing text;
begin
    perform lapse.check_attachable(p_target);
    perform lapse.check_file_column(p_target, p_path_column, 'path');

    if num_nonnulls(p_storage, p_storage_column) <> 1 then
        raise exception 'table %: which storage are the files in?', p_target
            using errcode = 'LP001', hint = 'Give either p_storage, the name of one, or p_storage_column.';
    end if;
    if octet_length(p_storage) not between 1 and 200 then
        raise exception 'a storage can''t be named %', quote_literal(p_storage)
            using errcode = 'LP001', hint = 'A storage goes by the name that it has in the workers'' configuration.';
    end if;
    if p_storage_column is not null then
        perform lapse.check_file_column(p_target, p_storage_column, 'storage');
    end if;
    if p_removed_column is not null then
        perform lapse.check_file_column(p_target, p_removed_column, 'removed');
    end if;
    if p_live_when is null and num_nonnulls(p_due, p_removed_column) > 0 then
        raise exception 'table %: every row needs its file, so % has no meaning', p_target,
                        case when p_due is null then 'p_removed_column' else 'p_due' end
            using errcode = 'LP001', hint = 'Say in p_live_when in which state a row needs its file.';
    end if;
    if p_index is null or p_index not in ('require', 'build', 'later') then
        raise exception 'p_index can''t be %', coalesce(quote_literal(p_index), 'NULL')
            using errcode = 'LP001', hint = 'Use require, build or later.';
    end if;
    if p_live_when is not null then
        perform lapse.check_row_expression(p_target, p_live_when, 'boolean', 'condition p_live_when');
    end if;
    if p_due is not null then
        perform lapse.check_row_expression(p_target, p_due, 'timestamp with time zone', 'time p_due');
    end if;

    v_new.grace := lapse.checked_grace(p_grace, p_graces);
    v_new.path_column := p_path_column;
    v_new.storage := p_storage;
    v_new.storage_column := p_storage_column;
    v_new.live_when := p_live_when;
    v_new.due := p_due;
    v_new.removed_column := p_removed_column;
    select format('%I.%I', n.nspname, c.relname), pg_get_userbyid(c.relowner)
      into v_new.target_table, v_new.attached_by
      from pg_class as c
      join pg_namespace as n on n.oid = c.relnamespace
     where c.oid = p_target;

    -- Of a column that was renamed or dropped, too: what was made for it can't work any more.
    select f.function, f.declared ->> 'index_name' as index_name,
           (f.declared ->> 'storage', f.declared ->> 'storage_column', f.declared ->> 'path_column')
               is distinct from (p_storage, p_storage_column, p_path_column) as moved
      into v_old
      from lapse.attached_functions(p_target) as f
     where f.declared ->> 'path_column' = p_path_column
        or p_replace
           and not exists (select from pg_attribute as a
                            where a.attrelid = p_target and a.attname = f.declared ->> 'path_column' and not a.attisdropped)
     order by f.declared ->> 'path_column' = p_path_column desc
     limit 1;
    if found and p_replace is not true then
        raise exception 'the files of column % of table % are attached already', p_path_column, p_target
            using errcode = 'LP038',
                  hint = 'Say p_replace => true to change how, or: select lapse.detach_files(...) to end it.';
    end if;

    v_new.function := lapse.attached_name(p_target, p_path_column, v_old.function);
    v_new.index_name := v_old.index_name;
    select i.lookup, i.missing into v_new.lookup, v_missing from lapse.attachment_index(p_target, p_storage_column, p_path_column) as i;

    if v_new.lookup is null and v_missing is null then
        v_new.lookup := 'digest';  -- a table without any partition
    elsif v_new.lookup is null and p_index = 'build' then
        v_new.index_name := lapse.build_attachment_index(p_target, p_storage_column, p_path_column, v_new.function);
        v_new.lookup := 'digest';
    elsif v_new.lookup is null and p_index = 'require' then
        raise exception 'table % has no index by which a file''s rows are found', p_target
            using errcode = 'LP037',
                  detail = 'Before a file is deleted, the table is asked whether a row still needs it.',
                  hint = v_missing;
    elsif v_new.lookup is null then
        raise notice 'no file of table % is deleted until there is an index to find its rows by', p_target
            using hint = v_missing || chr(10) || 'Then call lapse.attach_files again with p_replace => true.';
    end if;

    if v_old.moved then
        -- From now on the table answers for other files. Of the former ones, what rows still name must not go.
        perform lapse.release_attachment(v_old.function::regprocedure);
    end if;
    perform lapse.make_attachment(p_target, v_new);
    if v_old.function is not null then
        perform lapse.drop_attachment_leftovers(p_target, v_old.function, v_new);
    end if;

    return lapse.record_attachment(format('%s()', v_new.function)::regprocedure);
end;
$$;

comment on function lapse.attach_files(regclass, text, text, text, text, interval, jsonb, text, text, text, boolean) is
    'Let the files of a table''s rows go with them: makes the triggers and answers for the files before they are deleted.';
