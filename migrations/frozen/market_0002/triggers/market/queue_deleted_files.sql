-- queue_deleted_files: a deleted row leaves its file behind as work.
--
-- After every DELETE from task_files, those included that cascade from a task
-- or a user: the files are queued now. A file that was removed already is not
-- queued again; one that another live row still names is found out when a
-- worker is about to take it. For the chunks see queue_files_of_tasks.

create or replace function market.queue_deleted_files()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may delete a file's row needs no right on the queue
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_files lapse.file_request[];
begin
    for v_files in
        with numbered as (
            select o.id, o.storage, o.path,
                   (rank() over (order by o.storage, lapse.path_digest(o.path)) - 1) / 10000 as chunk
              from old_files as o
             where o.removed_at is null
        )
        select array_agg((n.storage, n.path, now(), 'row deleted', 'market.task_files', n.id::text, null)::lapse.file_request)
          from numbered as n
         group by n.chunk
         order by n.chunk
    loop
        perform lapse.enqueue_files(v_files);
    end loop;

    return null;
end;
$$;

comment on function market.queue_deleted_files() is
    'Trigger: queue the files of deleted rows.';

create or replace trigger queue_deleted_files
    after delete on market.task_files
    referencing old table as old_files
    for each statement
    execute function market.queue_deleted_files();

comment on trigger queue_deleted_files on market.task_files is 'A deleted row''s file is queued now.';
