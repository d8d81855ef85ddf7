-- keep_new_uploads: a file that is uploaded leaves the queue.
--
-- After every INSERT into temp_uploads, and every UPDATE that gives an upload
-- another file, removed_at back, or time after it had lapsed. Somebody needs the
-- file now, so a pending row of an earlier one under its name is taken out; a
-- WARNING counts those that a worker already holds. What has lapsed on arrival
-- changes nothing. For full join and chunks see queue_files_of_tasks.

create or replace function market.keep_new_uploads()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may add an upload needs no right on the queue
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    v_storages text[];
    v_paths    text[];
begin
    if tg_op = 'INSERT' then
        for v_storages, v_paths in
            with numbered as (
                select a.storage, a.path,
                       (rank() over (order by a.storage, lapse.path_digest(a.path)) - 1) / 10000 as chunk
                  from after_uploads as a
                 where a.removed_at is null
                   and a.expires_at > now()
            )
            select array_agg(n.storage), array_agg(n.path) from numbered as n group by n.chunk order by n.chunk
        loop
            perform lapse.cancel_files(v_storages, v_paths);
        end loop;
    else
        for v_storages, v_paths in
            with numbered as (
                select a.storage, a.path,
                       (rank() over (order by a.storage, lapse.path_digest(a.path)) - 1) / 10000 as chunk
                  from before_uploads as b
                  full join after_uploads as a on a.id = b.id
                 where a.removed_at is null
                   and a.expires_at > now()
                   and ((a.storage, a.path, a.removed_at) is distinct from (b.storage, b.path, b.removed_at)
                        or b.expires_at <= now())
            )
            select array_agg(n.storage), array_agg(n.path) from numbered as n group by n.chunk order by n.chunk
        loop
            perform lapse.cancel_files(v_storages, v_paths);
        end loop;
    end if;

    return null;
end;
$$;

comment on function market.keep_new_uploads() is
    'Trigger: take the files of new uploads out of the queue.';

create or replace trigger keep_new_uploads_insert
    after insert on market.temp_uploads
    referencing new table as after_uploads
    for each statement
    execute function market.keep_new_uploads();

create or replace trigger keep_new_uploads_update
    after update on market.temp_uploads
    referencing old table as before_uploads new table as after_uploads
    for each statement
    execute function market.keep_new_uploads();

comment on trigger keep_new_uploads_insert on market.temp_uploads is 'A new upload''s file is needed.';
comment on trigger keep_new_uploads_update on market.temp_uploads is 'So is one that took another''s place.';
