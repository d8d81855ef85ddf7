-- market.files_removed: note that these files are gone.
--
-- In: storages and paths, in pairs. Out: the pairs of which a row could not be
-- marked, because somebody has it locked: to be told again. Raises nothing and
-- waits for nobody. Every row that names the file gets removed_at, live ones
-- too: a file that a worker already held when its task was reopened is gone
-- all the same.

create or replace function market.files_removed(
    p_storages text[],
    p_paths    text[]
)
    returns table (storage text, path text)
    language sql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    with named as materialized (
        select f.id, f.storage, f.path
          from (select distinct a.storage, a.path
                  from unnest(p_storages, p_paths) as a (storage, path)) as a
          join market.task_files as f
            on f.storage = a.storage
           and lapse.path_digest(f.path) = lapse.path_digest(a.path)
           and f.path = a.path
         where f.removed_at is null
    ),
    locked as materialized (
        select f.id
          from market.task_files as f
          join named as n on n.id = f.id
         where f.storage = n.storage
           and f.path = n.path
           and f.removed_at is null
         order by f.id
           for no key update of f skip locked
    ),
    marked as (
        update market.task_files as f
           set removed_at = now()
          from locked as l
         where f.id = l.id
        returning f.id
    )
    select distinct n.storage, n.path
      from named as n
     where not exists (select from marked as m where m.id = n.id)
$$;

comment on function market.files_removed(text[], text[]) is
    'File source market: set removed_at for files that are gone; returns those whose rows are locked.';
