-- market.uploads_removed: note that the files of these uploads are gone.
--
-- In: storages, paths, and when the worker took each file, side by side. Out:
-- the pairs of which the upload could not be marked, because somebody has it
-- locked: to be told again. Raises nothing and waits for nobody. An upload whose
-- file is gone can't be taken by a task, and its file is not queued again when it
-- lapses. See market.files_removed, whose rules these are.

create or replace function market.uploads_removed(
    p_storages   text[],
    p_paths      text[],
    p_claimed_at timestamptz[]
)
    returns table (storage text, path text)
    language sql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    with named as materialized (
        select u.id, u.storage, u.path, a.claimed_at
          from (select a.storage, a.path, max(a.claimed_at) as claimed_at
                  from unnest(p_storages, p_paths, p_claimed_at) as a (storage, path, claimed_at)
                 group by a.storage, a.path) as a
          join market.temp_uploads as u
            on u.storage = a.storage
           and lapse.path_digest(u.path) = lapse.path_digest(a.path)
           and u.path = a.path
         where u.removed_at is null
           and u.named_at <= a.claimed_at
    ),
    locked as materialized (
        select u.id
          from market.temp_uploads as u
          join named as n on n.id = u.id
         where u.storage = n.storage
           and u.path = n.path
           and u.removed_at is null
           and u.named_at <= n.claimed_at
         order by u.id
           for no key update of u skip locked
    ),
    marked as (
        update market.temp_uploads as u
           set removed_at = now()
          from locked as l
         where u.id = l.id
        returning u.id
    )
    select distinct n.storage, n.path
      from named as n
     where not exists (select from marked as m where m.id = n.id)
$$;

comment on function market.uploads_removed(text[], text[], timestamptz[]) is
    'File source market_uploads: set removed_at for uploads whose files are gone; returns those whose rows are locked.';
