-- market.files_in_use: which of these files a live row still needs, and until when.
--
-- In: storages and paths, in pairs. Out: each pair that is still needed, once,
-- with the time until which; NULL until means that nobody knows. A file is
-- needed by a task that is open or taken, by a completed one until its
-- files_go_at, by an upload until it lapses, and by whatever somebody holds for ten
-- minutes more, and again; of several references the longest-lasting counts. Raises nothing. One statement, so that an upload that
-- becomes a task's file at this moment is seen as the one or the other. Where nothing is
-- held, the last two parts are not even begun. Volatile,
-- so that it sees what has committed by now and not by the start of its caller's
-- statement; lapse.exchange_files asks it before a file is handed out.

create or replace function market.files_in_use(
    p_storages text[],
    p_paths    text[]
)
    returns table (storage text, path text, until timestamptz)
    language sql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    select n.storage, n.path,
           case when bool_or(n.until is null) then null else max(n.until) end
      from (select f.storage, f.path, case when t.status = 'completed' then t.files_go_at end as until
              from unnest(p_storages, p_paths) as a (storage, path)
              join market.task_files as f
                on f.storage = a.storage
               and lapse.path_digest(f.path) = lapse.path_digest(a.path)
               and f.path = a.path
              join market.tasks as t on t.id = f.task_id
             where f.removed_at is null
               and (t.status in ('open', 'taken')
                    or t.status = 'completed' and t.files_go_at > clock_timestamp())
            union all
            select u.storage, u.path, u.expires_at
              from unnest(p_storages, p_paths) as a (storage, path)
              join market.temp_uploads as u
                on u.storage = a.storage
               and lapse.path_digest(u.path) = lapse.path_digest(a.path)
               and u.path = a.path
             where u.removed_at is null
               and u.expires_at > clock_timestamp()
            union all
            select f.storage, f.path, clock_timestamp() + interval '10 minutes'
              from unnest(p_storages, p_paths) as a (storage, path)
              join market.task_files as f
                on f.storage = a.storage
               and lapse.path_digest(f.path) = lapse.path_digest(a.path)
               and f.path = a.path
             where (select exists (select from lapse.held_keys('market.tasks'))
                           or exists (select from lapse.held_keys('market.task_files')))
               and f.removed_at is null
               and (f.task_id::text in (select lapse.held_keys('market.tasks'))
                    or f.id::text in (select lapse.held_keys('market.task_files')))
            union all
            select u.storage, u.path, clock_timestamp() + interval '10 minutes'
              from unnest(p_storages, p_paths) as a (storage, path)
              join market.temp_uploads as u
                on u.storage = a.storage
               and lapse.path_digest(u.path) = lapse.path_digest(a.path)
               and u.path = a.path
             where (select exists (select from lapse.held_keys('market.temp_uploads')))
               and u.removed_at is null
               and u.id::text in (select lapse.held_keys('market.temp_uploads'))) as n
     group by n.storage, n.path
$$;

comment on function market.files_in_use(text[], text[]) is
    'File source market: those of the files that a live task or upload still needs, and until when (NULL: not known).';
