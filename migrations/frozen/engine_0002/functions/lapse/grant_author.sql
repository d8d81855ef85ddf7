-- lapse.grant_author: what a role needs to put pglapse on tables of its own.
--
-- In: the role. Errors as of lapse.grant_routines. It may declare, change, preview and drop what lapses, attach
-- files and undo that, and call what the functions that these make call in turn, for tables that it owns or whose owner it may act
-- as, and for no others: that is asked of the catalog each time. It may insert into the queue, as an application may
-- (lapse.grant_application), and what it writes there need not go through the merge. It can read none of the engine's
-- tables, and sees of its views one that shows rows of its own tables.

create or replace function lapse.grant_author(p_role name)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform lapse.grant_routines(p_role, array[
        'api_version', 'quoted_name', 'path_digest',
        'attach_files', 'detach_files', 'detach_dropped', 'attachment_findings',
        'attached_functions', 'attached_name', 'attached_relations', 'attachment_family', 'attachment_index',
        'attachment_source_code', 'attachment_terms', 'attachment_trigger_code', 'build_attachment_index',
        'check_attachable', 'check_file_column', 'check_row_expression', 'checked_grace', 'declared_attachment',
        'drop_attachment_leftovers', 'filled', 'forget_attachments', 'grace_term', 'make_attachment', 'on_detached',
        'record_attachment', 'release_attachment', 'table_key',
        'enqueue_paths', 'need_file', 'need_files', 'cancel_files', 'nudge_workers',
        'create_expiry', 'drop_expiry', 'enable_expiry',
        'check_expiry_target', 'expiry_key', 'expiry_columns', 'other_meaning', 'expiry_assignments', 'expiry_call',
        'equality', 'expiry_act', 'expiry_settings', 'expiry_step', 'expiry_due', 'expiry_index', 'index_statements', 'short_name', 'warn_expiry',
        'generated_name', 'due_function', 'checked_due_function', 'due_query', 'due_statement', 'due_shift', 'blocked_keys', 'explained',
        'declared_expiry', 'enter_expiry', 'forget_expiry', 'index_proof', 'unindexed_children',
        'hidden_rows', 'preview', 'preview_json', 'preview_facts', 'deletion_reach', 'file_triggers', 'rows_estimated', 'foreign_code']);
    execute format('grant select on lapse.own_blocked_row to %I', p_role);
    execute format('grant insert (storage, path, reason, source_table, source_id, expected, not_before, generation) '
                   'on lapse.file_cleanup_queue to %I', p_role);
end;
$$;

comment on function lapse.grant_author(name) is
    'Let a role declare what lapses in tables of its own, and attach files to them.';
