-- market.files_listed: the files of a storage that rows of the marketplace speak of, page by page.
--
-- In: the storage, the last path of the page before (NULL: from the start), how many. Out: paths,
-- in the order of their digests, which an index has. Raises nothing. Asked by sweeps (lapse.listed_files).

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
    select f.path
      from (select distinct on (lapse.path_digest(f.path)) f.path
              from market.task_files as f
             where f.storage = p_storage
               and lapse.path_digest(f.path) > coalesce(lapse.path_digest(p_after), '')
               and f.removed_at is null
             order by lapse.path_digest(f.path)) as f
     limit p_limit
$$;

comment on function market.files_listed(text, text, integer) is
    'File source market: the files of a storage that rows speak of, page by page.';
