-- market.files_removed: note that these files are gone.
--
-- In: storages, paths, and when the worker took each file, side by side. Out:
-- the pairs of which a row could not be marked, because somebody has it locked:
-- to be told again. Raises nothing and waits for nobody. Every row of a task's
-- file or an upload that named the file by then gets removed_at, live ones too: a
-- file that a worker already held when its task was reopened is gone all the same,
-- and an upload without a file can't become a task's. A row that names it only
-- since then is left alone: its file may have been written anew, and marked as
-- gone it would be protected no more. Should it be gone after all, it is found
-- missing when its time comes.

create or replace function market.files_removed(
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
    with gone as materialized (
        select a.storage, a.path, max(a.claimed_at) as claimed_at
          from unnest(p_storages, p_paths, p_claimed_at) as a (storage, path, claimed_at)
         group by a.storage, a.path
    ),
    named as materialized (
        select f.id, f.storage, f.path, a.claimed_at
          from gone as a
          join market.task_files as f
            on f.storage = a.storage
           and lapse.path_digest(f.path) = lapse.path_digest(a.path)
           and f.path = a.path
         where f.removed_at is null
           and f.named_at <= a.claimed_at
    ),
    locked as materialized (
        select f.id
          from market.task_files as f
          join named as n on n.id = f.id
         where f.storage = n.storage
           and f.path = n.path
           and f.removed_at is null
           and f.named_at <= n.claimed_at
         order by f.id
           for no key update of f skip locked
    ),
    marked as (
        update market.task_files as f
           set removed_at = now()
          from locked as l
         where f.id = l.id
        returning f.id
    ),
    uploaded as materialized (
        select u.id, u.storage, u.path, a.claimed_at
          from gone as a
          join market.temp_uploads as u
            on u.storage = a.storage
           and lapse.path_digest(u.path) = lapse.path_digest(a.path)
           and u.path = a.path
         where u.removed_at is null
           and u.named_at <= a.claimed_at
    ),
    locked_uploads as materialized (
        select u.id
          from market.temp_uploads as u
          join uploaded as n on n.id = u.id
         where u.storage = n.storage
           and u.path = n.path
           and u.removed_at is null
           and u.named_at <= n.claimed_at
         order by u.id
           for no key update of u skip locked
    ),
    marked_uploads as (
        update market.temp_uploads as u
           set removed_at = now()
          from locked_uploads as l
         where u.id = l.id
        returning u.id
    )
    select n.storage, n.path
      from named as n
     where not exists (select from marked as m where m.id = n.id)
    union
    select n.storage, n.path
      from uploaded as n
     where not exists (select from marked_uploads as m where m.id = n.id)
$$;

comment on function market.files_removed(text[], text[], timestamptz[]) is
    'File source market: set removed_at for files that are gone; returns those whose rows are locked.';
