-- hold_uploads: while a task's file is being added, nobody deletes the upload that it was.
--
-- After every INSERT into task_files and every UPDATE of it, before
-- queue_new_files and queue_changed_files (triggers fire by name). An upload with
-- the same file is locked until the transaction ends, in order of number:
-- expire_temp_uploads skips it, and who deletes it waits, and then sees the
-- task's row. If the upload is just being deleted, this waits for that, and then
-- queue_new_files finds the file queued and takes it out. Without the lock each
-- of the two would look before the other has committed, and a live task's file
-- would be queued.

create or replace function market.hold_uploads()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may add a file needs no right on the uploads
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
begin
    perform
       from (select u.id
               from after_files as a
              cross join lateral (select u.id
                                    from market.temp_uploads as u
                                   where u.storage = a.storage
                                     and lapse.path_digest(u.path) = lapse.path_digest(a.path)
                                  offset 0) as u
              where a.removed_at is null
              order by u.id
             offset 0) as n
      cross join lateral (select from market.temp_uploads as u where u.id = n.id for key share) as u;

    return null;
end;
$$;

comment on function market.hold_uploads() is
    'Trigger: lock the uploads whose files become files of tasks.';

create or replace trigger hold_uploads_insert
    after insert on market.task_files
    referencing new table as after_files
    for each statement
    execute function market.hold_uploads();

create or replace trigger hold_uploads_update
    after update on market.task_files
    referencing new table as after_files
    for each statement
    execute function market.hold_uploads();

comment on trigger hold_uploads_insert on market.task_files is 'An upload that becomes a task''s file is not deleted meanwhile.';
comment on trigger hold_uploads_update on market.task_files is 'Nor one that a changed row names.';
