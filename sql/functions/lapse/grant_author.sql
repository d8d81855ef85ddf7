-- lapse.grant_author: what a role needs to put pglapse on tables of its own.
--
-- In: the role. Errors as of lapse.grant_routines. It may call lapse.attach_files and its undo, and what the functions
-- that these make call in turn, with the rights of the tables' owner. It may insert into the queue, as an application may
-- (lapse.grant_application), and what it writes there need not go through the merge; it can read nothing of it.

create or replace function lapse.grant_author(p_role name)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform lapse.grant_routines(p_role, array[
        'quoted_name', 'path_digest',
        'attach_files', 'detach_files', 'detach_dropped', 'attachment_findings',
        'attached_functions', 'attached_name', 'attached_relations', 'attachment_family', 'attachment_index',
        'attachment_source_code', 'attachment_terms', 'attachment_trigger_code', 'build_attachment_index',
        'check_attachable', 'check_file_column', 'check_row_expression', 'checked_grace', 'declared_attachment',
        'drop_attachment_leftovers', 'filled', 'forget_attachments', 'grace_term', 'make_attachment',
        'record_attachment', 'release_attachment', 'table_key',
        'enqueue_paths', 'need_files', 'cancel_files', 'nudge_workers']);
    execute format('grant insert (storage, path, reason, source_table, source_id, expected, not_before, generation) '
                   'on lapse.file_cleanup_queue to %I', p_role);
end;
$$;

comment on function lapse.grant_author(name) is
    'Let a role attach files to tables of its own.';
