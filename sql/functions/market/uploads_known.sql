-- market.uploads_known: which of these files are temporary uploads, lapsed or not.
--
-- In: storages and paths, in pairs. Out: each pair that is known, once. A row whose file was removed
-- knows it no more. Raises nothing. Asked by sweeps for orphans (lapse.unknown_files).

create or replace function market.uploads_known(
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
     where exists (select from market.temp_uploads as f
                    where f.storage = a.storage
                      and lapse.path_digest(f.path) = lapse.path_digest(a.path)
                      and f.removed_at is null)
$$;

comment on function market.uploads_known(text[], text[]) is
    'File source market_uploads: those of the files that are temporary uploads, lapsed or not.';
