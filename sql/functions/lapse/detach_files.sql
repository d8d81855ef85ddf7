-- lapse.detach_files: leave the files of a table alone from now on, and leave no trace of the attachment.
--
-- In: the table, its path column, and whether it is no error if that is not attached (or the table is NULL, as
-- to_regclass says of one that is not there). Out: whether there was anything to detach. Triggers, functions, file source
-- and the index that was made for it go. What is queued of rows that are gone stays queued; what rows of the table still
-- name is taken out, since nobody would ask them any more (lapse.release_attachment). LP035 unless the
-- caller owns the table, LP039 where the column is not attached.

create or replace function lapse.detach_files(p_target regclass, p_path_column text, p_if_exists boolean default false)
    returns boolean
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_old record;
begin
    select f.function, f.declared ->> 'index_name' as index_name
      into v_old
      from lapse.attached_functions(p_target) as f
     where f.declared ->> 'path_column' = p_path_column
     limit 1;

    if v_old.function is null then
        if p_if_exists then
            return false;
        end if;
        raise exception 'the files of column % of table % are not attached',
                        coalesce(p_path_column, 'NULL'), coalesce(p_target::text, 'NULL')
            using errcode = 'LP039', hint = 'p_if_exists => true makes that no error. If the table was dropped: select lapse.detach_dropped().';
    end if;

    if not exists (select from pg_class as c where c.oid = p_target and pg_has_role(current_user, c.relowner, 'USAGE')) then
        raise exception 'table % is not yours', p_target
            using errcode = 'LP035', hint = 'Its owner may detach its files.';
    end if;

    execute format('lock table %s in access exclusive mode', p_target);
    perform lapse.release_attachment(v_old.function::regprocedure);
    perform lapse.drop_attachment_leftovers(p_target, v_old.function, null);
    if to_regclass(v_old.index_name) is not null then
        execute format('drop index %s', v_old.index_name);
    end if;
    perform lapse.forget_attachments();

    return true;
end;
$$;

comment on function lapse.detach_files(regclass, text, boolean) is
    'Undo lapse.attach_files: no triggers, functions or index of it remain.';
