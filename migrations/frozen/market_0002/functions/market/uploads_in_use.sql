-- market.uploads_in_use: which of these files an upload that has not lapsed still needs, and until when.
--
-- In: storages and paths, in pairs. Out: each pair that is still needed, with the
-- time when the upload lapses. A lapsed upload needs its file no more, whether or
-- not expire_temp_uploads has been. Raises nothing. See market.files_in_use.

create or replace function market.uploads_in_use(
    p_storages text[],
    p_paths    text[]
)
    returns table (storage text, path text, until timestamptz)
    language sql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    select distinct u.storage, u.path, u.expires_at
      from unnest(p_storages, p_paths) as a (storage, path)
      join market.temp_uploads as u
        on u.storage = a.storage
       and lapse.path_digest(u.path) = lapse.path_digest(a.path)
       and u.path = a.path
     where u.removed_at is null
       and u.expires_at > clock_timestamp()
$$;

comment on function market.uploads_in_use(text[], text[]) is
    'File source market_uploads: those of the files that an upload still needs, and until when.';
