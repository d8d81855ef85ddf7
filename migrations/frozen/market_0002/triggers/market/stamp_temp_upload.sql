-- stamp_temp_upload: an upload lapses after 24 hours, and one that is given another file has a file again.
--
-- Fires before an INSERT that leaves expires_at NULL: 24 hours (no day: that
-- changes its length with daylight saving) after uploaded_at. And before an
-- UPDATE that changes storage or path, or takes removed_at back: see
-- stamp_task_file, whose rules these are.

create or replace function market.stamp_temp_upload()
    returns trigger
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'INSERT' then
        new.expires_at := new.uploaded_at + interval '24 hours';
    else
        new.named_at := clock_timestamp();
        if new.removed_at is not distinct from old.removed_at then
            new.removed_at := null;
        end if;
    end if;

    return new;
end;
$$;

comment on function market.stamp_temp_upload() is
    'Trigger: set expires_at of a new upload; clear removed_at and set named_at when one is given another file.';

create or replace trigger stamp_temp_upload_insert
    before insert on market.temp_uploads
    for each row
    when (new.expires_at is null)
    execute function market.stamp_temp_upload();

create or replace trigger stamp_temp_upload_update
    before update on market.temp_uploads
    for each row
    when ((new.storage, new.path) is distinct from (old.storage, old.path)
          or new.removed_at is null and old.removed_at is not null)
    execute function market.stamp_temp_upload();

comment on trigger stamp_temp_upload_insert on market.temp_uploads is 'Lapses 24 hours after the upload unless given.';
comment on trigger stamp_temp_upload_update on market.temp_uploads is 'A new path is a new file.';
