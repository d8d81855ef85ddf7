-- lapse.grant_application: what an application's role needs to condemn files and to save them.
--
-- In: the role. Errors as of lapse.grant_routines. It may queue and cancel, also by plain INSERT
-- (of the columns that are a client's business), and write to tables of its own that have an
-- index on lapse.path_digest. It can't read the queue.

create or replace function lapse.grant_application(p_role name)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform lapse.grant_routines(p_role, array[
        'enqueue_file', 'enqueue_files', 'cancel_file', 'cancel_files', 'path_digest']);
    execute format('grant insert (storage, path, reason, source_table, source_id, expected, not_before) '
                   'on lapse.file_cleanup_queue to %I', p_role);
end;
$$;

comment on function lapse.grant_application(name) is
    'Let an application''s role queue files for deletion and cancel them.';
