-- stamp_task_file: a row that is given another file has a file again.
--
-- Fires when storage or path change, or removed_at is taken back. removed_at
-- told of the old file; left as it was, the new one would count as gone and never
-- be queued. An application that sets removed_at in the same statement knows
-- better. named_at keeps a worker that deleted the file before from marking this one.

create or replace function market.stamp_task_file()
    returns trigger
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    new.named_at := clock_timestamp();
    if new.removed_at is not distinct from old.removed_at then
        new.removed_at := null;
    end if;

    return new;
end;
$$;

comment on function market.stamp_task_file() is
    'Trigger: clear removed_at and set named_at when a row is given another file.';

create or replace trigger stamp_task_file
    before update on market.task_files
    for each row
    when ((new.storage, new.path) is distinct from (old.storage, old.path)
          or new.removed_at is null and old.removed_at is not null)
    execute function market.stamp_task_file();

comment on trigger stamp_task_file on market.task_files is 'A new path is a new file.';
