-- queue_truncated_files: TRUNCATE fires no DELETE trigger, so every file is queued before it.
--
-- Before a TRUNCATE of task_files, also one that cascades from tasks: all files
-- that are not removed yet are queued now, in the same transaction. For the
-- chunks see queue_files_of_tasks.

create or replace function market.queue_truncated_files()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may truncate needs no right on the queue
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_files lapse.file_request[];
begin
    for v_files in
        with numbered as (
            select f.id, f.storage, f.path,
                   (rank() over (order by f.storage, lapse.path_digest(f.path)) - 1) / 10000 as chunk
              from market.task_files as f
             where f.removed_at is null
        )
        select array_agg((n.storage, n.path, now(), 'table truncated', 'market.task_files', n.id::text, null)::lapse.file_request)
          from numbered as n
         group by n.chunk
         order by n.chunk
    loop
        perform lapse.enqueue_files(v_files);
    end loop;

    return null;
end;
$$;

comment on function market.queue_truncated_files() is
    'Trigger: queue every file before its table is truncated.';

create or replace trigger queue_truncated_files
    before truncate on market.task_files
    for each statement
    execute function market.queue_truncated_files();

comment on trigger queue_truncated_files on market.task_files is 'TRUNCATE queues all files.';
