-- queue_files_of_tasks: when a task ends its files are queued, when it comes back they are taken out again.
--
-- After every UPDATE of tasks, for those whose files_go_at (see stamp_task)
-- changed: now live, their pending files leave the queue; a later time, they
-- leave it and are queued afresh, since the queue keeps the earlier of two
-- times; else they are queued. All in the transaction of the change. In the
-- order of the queue's key, so that two statements that share files take turns,
-- and in chunks, so that no statement needs one giant array; a file that several
-- rows name is in one chunk, where what comes first and what last is decided.
--
-- What counts is the task as it is now, not as this statement left it: a trigger
-- of the application's own may have changed it again in between, and then the
-- files of that later change have been dealt with already.
--
-- A plan is kept for the session and knows the size of the first statement and
-- of the tables at that time only. So the two transition tables meet in a full
-- join (never a nested loop, whose cost is quadratic), files are looked up in a
-- lateral subquery that "offset 0" keeps from becoming a scan of the whole table,
-- and with enable_seqscan off each look-up goes through its index, also when the
-- table was nearly empty while the plan was made.

create or replace function market.queue_files_of_tasks()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may update a task needs no right on the queue
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    v_storages text[];
    v_paths    text[];
    v_files    lapse.file_request[];
begin
    for v_storages, v_paths, v_files in
        with change as materialized (
            select a.id, b.files_go_at as was
              from before_tasks as b
              full join after_tasks as a on a.id = b.id
             where a.files_go_at is distinct from b.files_go_at
        ),
        numbered as (
            select f.id, f.storage, f.path, t.status, c.was, t.goes,
                   (rank() over (order by f.storage, lapse.path_digest(f.path)) - 1) / 10000 as chunk
              from change as c
             cross join lateral (select t.status, t.files_go_at as goes
                                   from market.tasks as t
                                  where t.id = c.id
                                 offset 0) as t
             cross join lateral (select f.id, f.storage, f.path
                                   from market.task_files as f
                                  where f.task_id = c.id
                                    and f.removed_at is null
                                 offset 0) as f
             where t.goes is distinct from c.was
        )
        select array_agg(n.storage) filter (where n.goes is null or n.goes > n.was),
               array_agg(n.path) filter (where n.goes is null or n.goes > n.was),
               array_agg((n.storage, n.path, n.goes, 'task ' || n.status, 'market.task_files', n.id::text, null)::lapse.file_request)
                   filter (where n.goes is not null)
          from numbered as n
         group by n.chunk
         order by n.chunk
    loop
        if v_paths is not null then
            perform lapse.cancel_files(v_storages, v_paths);
        end if;
        if v_files is not null then
            perform lapse.enqueue_files(v_files);
        end if;
    end loop;

    return null;
end;
$$;

comment on function market.queue_files_of_tasks() is
    'Trigger: queue the files of tasks that ended; take those of reopened tasks out of the queue.';

create or replace trigger queue_files_of_tasks
    after update on market.tasks
    referencing old table as before_tasks new table as after_tasks
    for each statement
    execute function market.queue_files_of_tasks();

comment on trigger queue_files_of_tasks on market.tasks is
    'Completed: files go after 72 hours; cancelled: now; reopened: they stay.';
