-- queue_left_uploads: what no upload names any more, and no task needs, is queued.
--
-- After every DELETE from temp_uploads (those included that cascade from a user)
-- and every UPDATE that changes storage or path, and before a TRUNCATE: the files
-- are queued now, in the same transaction. A file that a task still needs is that
-- task's business: so an upload becomes a task's file by adding the one row and
-- deleting the other, and nothing is queued. In the other order the file is
-- queued by this and taken out again by queue_new_files. A file that was removed
-- already is not queued again.
--
-- Against a row of task_files that has not committed, hold_uploads keeps the
-- upload locked. For lateral and chunks see queue_files_of_tasks.

create or replace function market.queue_left_uploads()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may delete an upload needs no right on the queue
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    v_files lapse.file_request[];
begin
    if tg_op = 'TRUNCATE' then
        for v_files in
            with numbered as (
                select u.id, u.storage, u.path,
                       (rank() over (order by u.storage, lapse.path_digest(u.path)) - 1) / 10000 as chunk
                  from market.temp_uploads as u
                 where u.removed_at is null
                   and not exists (select from market.task_files as f
                                     join market.tasks as t on t.id = f.task_id
                                    where f.storage = u.storage
                                      and lapse.path_digest(f.path) = lapse.path_digest(u.path)
                                      and f.removed_at is null
                                      and (t.files_go_at is null or t.files_go_at > now()))
            )
            select array_agg((n.storage, n.path, now(), 'table truncated', 'market.temp_uploads', n.id::text, null)::lapse.file_request)
              from numbered as n
             group by n.chunk
             order by n.chunk
        loop
            perform lapse.enqueue_files(v_files);
        end loop;

        return null;
    end if;

    for v_files in
        with numbered as (
            select b.id, b.storage, b.path,
                   (rank() over (order by b.storage, lapse.path_digest(b.path)) - 1) / 10000 as chunk
              from before_uploads as b
              left join lateral (select true as named
                                   from market.task_files as f
                                   join market.tasks as t on t.id = f.task_id
                                  where f.storage = b.storage
                                    and lapse.path_digest(f.path) = lapse.path_digest(b.path)
                                    and f.removed_at is null
                                    and (t.files_go_at is null or t.files_go_at > now())
                                  limit 1) as f on true
              left join lateral (select true as named
                                   from market.temp_uploads as u
                                  where u.storage = b.storage
                                    and lapse.path_digest(u.path) = lapse.path_digest(b.path)
                                  limit 1) as u on true
             where b.removed_at is null
               and f.named is null
               and u.named is null
        )
        select array_agg((n.storage, n.path, now(), case tg_op when 'DELETE' then 'upload deleted' else 'path replaced' end,
                          'market.temp_uploads', n.id::text, null)::lapse.file_request)
          from numbered as n
         group by n.chunk
         order by n.chunk
    loop
        perform lapse.enqueue_files(v_files);
    end loop;

    return null;
end;
$$;

comment on function market.queue_left_uploads() is
    'Trigger: queue the files of deleted uploads and replaced paths, unless a row names them still.';

create or replace trigger queue_left_uploads_delete
    after delete on market.temp_uploads
    referencing old table as before_uploads
    for each statement
    execute function market.queue_left_uploads();

create or replace trigger queue_left_uploads_update
    after update on market.temp_uploads
    referencing old table as before_uploads
    for each statement
    execute function market.queue_left_uploads();

create or replace trigger queue_left_uploads_truncate
    before truncate on market.temp_uploads
    for each statement
    execute function market.queue_left_uploads();

comment on trigger queue_left_uploads_delete on market.temp_uploads is 'A deleted upload''s file is queued now, unless a task has it.';
comment on trigger queue_left_uploads_update on market.temp_uploads is 'So is a replaced path.';
comment on trigger queue_left_uploads_truncate on market.temp_uploads is 'TRUNCATE queues all files.';
