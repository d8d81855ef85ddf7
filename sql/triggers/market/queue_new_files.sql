-- queue_new_files: a file that arrives is kept or queued by its task's state.
--
-- After every INSERT into task_files. Task live: a pending row of that file
-- leaves the queue, since somebody needs it again. Task finished: the file is
-- queued, 72 hours after completion, or now when cancelled.
--
-- The tasks are locked first, in order, against a change of state that has not
-- committed: its trigger would not see the new file, and this one not the new
-- state. The lock is the one that an UPDATE takes, so that two who add a file
-- and then update the task take turns instead of deadlocking. That holds for
-- read committed, the default: a repeatable read transaction that ends a task
-- can't see a file added since it began, and leaves it unqueued. A row that a
-- trigger of the application's own has changed again was dealt with by that
-- change. For lateral and chunks see queue_files_of_tasks.

create or replace function market.queue_new_files()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may add a file needs no right on the queue
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    v_storages text[];
    v_paths    text[];
    v_files    lapse.file_request[];
begin
    perform
       from (select distinct n.task_id from new_files as n where n.removed_at is null order by n.task_id) as n
      cross join lateral (select from market.tasks as t where t.id = n.task_id for no key update) as t;

    for v_storages, v_paths, v_files in
        with numbered as (
            select n.id, n.storage, n.path, t.status,
                   case when t.status = 'completed' then t.files_go_at
                        when t.status = 'cancelled' then now() end as goes,
                   (rank() over (order by n.storage, lapse.path_digest(n.path)) - 1) / 10000 as chunk
              from new_files as n
             cross join lateral (select t.status, t.files_go_at
                                   from market.tasks as t
                                  where t.id = n.task_id
                                 offset 0) as t
             cross join lateral (select f.*
                                   from market.task_files as f
                                  where f.id = n.id
                                 offset 0) as f
             where n.removed_at is null
               and f.removed_at is null
               and (f.task_id, f.storage, f.path) = (n.task_id, n.storage, n.path)
        )
        select array_agg(n.storage) filter (where n.goes is null),
               array_agg(n.path) filter (where n.goes is null),
               array_agg((n.storage, n.path, n.goes, 'task ' || n.status, 'market.task_files', n.id::text, null)::lapse.file_request)
                   filter (where n.goes is not null)
          from numbered as n
         group by n.chunk
         order by n.chunk
    loop
        if v_files is not null then
            perform lapse.enqueue_files(v_files);
        end if;
        if v_paths is not null then
            perform lapse.cancel_files(v_storages, v_paths);
        end if;
    end loop;

    return null;
end;
$$;

comment on function market.queue_new_files() is
    'Trigger: a file of a live task leaves the queue; one of a finished task enters it.';

create or replace trigger queue_new_files
    after insert on market.task_files
    referencing new table as new_files
    for each statement
    execute function market.queue_new_files();

comment on trigger queue_new_files on market.task_files is 'A new file is kept or queued by its task''s state.';
