-- queue_changed_files: a replaced file is queued, and the one in its place treated as new.
--
-- After every UPDATE of task_files. The old storage and path, where they
-- changed, are queued now. A row with a new file, another task, or removed_at
-- taken back is treated as queue_new_files treats an inserted one, the lock on
-- its task included. What leaves is queued before what arrives is taken out, so
-- that two rows of live tasks may swap their files. A file that was removed
-- already is not queued again. What arrives is the row as it is now: a trigger
-- of the application's own may have changed it again. For full join, lateral and
-- chunks see queue_files_of_tasks.

create or replace function market.queue_changed_files()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may update a file's row needs no right on the queue
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
       from (with change as materialized (
                 select a.task_id, a.storage, a.path, a.removed_at,
                        b.task_id as old_task_id, b.storage as old_storage, b.path as old_path,
                        b.removed_at as old_removed_at
                   from before_files as b
                   full join after_files as a on a.id = b.id
             )
             select distinct c.task_id
               from change as c
              where c.removed_at is null
                and (c.task_id, c.storage, c.path, c.removed_at)
                    is distinct from (c.old_task_id, c.old_storage, c.old_path, c.old_removed_at)
              order by c.task_id) as n
      cross join lateral (select from market.tasks as t where t.id = n.task_id for no key update) as t;

    for v_storages, v_paths, v_files in
        with change as materialized (
            select f.id, f.task_id, f.storage, f.path, f.removed_at,
                   b.id as old_id, b.task_id as old_task_id, b.storage as old_storage, b.path as old_path,
                   b.removed_at as old_removed_at
              from before_files as b
              full join after_files as a on a.id = b.id
              left join lateral (select f.*
                                   from market.task_files as f
                                  where f.id = a.id
                                 offset 0) as f on true
             where (a.id, a.task_id, a.storage, a.path, a.removed_at)
                   is distinct from (b.id, b.task_id, b.storage, b.path, b.removed_at)
        ),
        verdict as (
            select c.old_id as id, c.old_storage as storage, c.old_path as path, 'path replaced' as reason,
                   now() as goes
              from change as c
             where c.old_removed_at is null
               and c.old_id is not null
               and (c.storage, c.path) is distinct from (c.old_storage, c.old_path)
            union all
            select c.id, c.storage, c.path, 'task ' || t.status,
                   case when t.status = 'completed' then t.files_go_at
                        when t.status = 'cancelled' then now() end
              from change as c
             cross join lateral (select t.status, t.files_go_at
                                   from market.tasks as t
                                  where t.id = c.task_id
                                 offset 0) as t
             where c.removed_at is null
               and (c.task_id, c.storage, c.path, c.removed_at)
                   is distinct from (c.old_task_id, c.old_storage, c.old_path, c.old_removed_at)
        ),
        numbered as (
            select v.*, (rank() over (order by v.storage, lapse.path_digest(v.path)) - 1) / 10000 as chunk
              from verdict as v
        )
        select array_agg(n.storage) filter (where n.goes is null),
               array_agg(n.path) filter (where n.goes is null),
               array_agg((n.storage, n.path, n.goes, n.reason, 'market.task_files', n.id::text, null)::lapse.file_request)
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

comment on function market.queue_changed_files() is
    'Trigger: queue replaced files; keep or queue the new ones by their task''s state.';

create or replace trigger queue_changed_files
    after update on market.task_files
    referencing old table as before_files new table as after_files
    for each statement
    execute function market.queue_changed_files();

comment on trigger queue_changed_files on market.task_files is 'A replaced path is queued now; the new one is a new file.';
