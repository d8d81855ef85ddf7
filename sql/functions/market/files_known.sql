-- market.files_known: which of these files a row of the marketplace speaks of, needed or not.
--
-- In: storages and paths, in pairs. Out: each pair that is known. A row whose file was removed knows it
-- no more; an upload knows its file also when it has lapsed: expire_temp_uploads is about to queue it.
-- Raises nothing. Asked by sweeps for orphans (lapse.unknown_files). One statement, so that an upload
-- that becomes a task's file at this moment is seen as the one or the other.

create or replace function market.files_known(
    p_storages text[],
    p_paths    text[]
)
    returns table (storage text, path text)
    language sql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    select a.storage, a.path
      from unnest(p_storages, p_paths) as a (storage, path)
     where exists (select from market.task_files as f
                    where f.storage = a.storage
                      and lapse.path_digest(f.path) = lapse.path_digest(a.path)
                      and f.removed_at is null)
        or exists (select from market.temp_uploads as u
                    where u.storage = a.storage
                      and lapse.path_digest(u.path) = lapse.path_digest(a.path)
                      and u.removed_at is null)
$$;

comment on function market.files_known(text[], text[]) is
    'File source market: those of the files that a row speaks of, needed or not.';
