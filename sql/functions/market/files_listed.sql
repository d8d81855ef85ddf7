-- market.files_listed: the files of a storage that rows of the marketplace speak of, page by page.
--
-- In: the storage, the last path of the page before (NULL: from the start), how many. Out: paths of
-- tasks' files and of uploads, in the order of their digests, which both tables have an index for.
-- Raises nothing. Asked by sweeps (lapse.listed_files).

create or replace function market.files_listed(
    p_storage text,
    p_after   text,
    p_limit   integer
)
    returns table (path text)
    language sql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    select l.path
      from ((select distinct on (lapse.path_digest(f.path)) f.path
               from market.task_files as f
              where f.storage = p_storage
                and lapse.path_digest(f.path) > coalesce(lapse.path_digest(p_after), '')
                and f.removed_at is null
              order by lapse.path_digest(f.path)
              limit p_limit)
            union all
            (select u.path
               from market.temp_uploads as u
              where u.storage = p_storage
                and lapse.path_digest(u.path) > coalesce(lapse.path_digest(p_after), '')
                and u.removed_at is null
              order by lapse.path_digest(u.path)
              limit p_limit)) as l
     order by lapse.path_digest(l.path)
     limit p_limit
$$;

comment on function market.files_listed(text, text, integer) is
    'File source market: the files of a storage that rows speak of, page by page.';
