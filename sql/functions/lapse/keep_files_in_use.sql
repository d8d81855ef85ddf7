-- lapse.keep_files_in_use: take back from a claim the files that something still needs.
--
-- In: rows just claimed, with their storages and paths. Out: the numbers of those taken back.
-- Needed for good: the row leaves the queue, logged as in_use, unless the file was asked for
-- again, then it waits for that time. Needed until a time: it waits until then, and the
-- attempt does not count; that is a second at least, so that no source keeps a worker
-- busy with one file. The longest answer of all sources holds; a time that has passed
-- is no need. As in lapse.settle_files, each row is looked up, and nothing depends on statistics.

create or replace function lapse.keep_files_in_use(p_ids bigint[], p_storages text[], p_paths text[])
    returns bigint[]
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids     bigint[];
    v_untils  timestamptz[];
    v_sources text[];
    v_errors  text[];
begin
    select array_agg(n.id), array_agg(n.until), array_agg(n.sources), array_agg(n.error)
      into v_ids, v_untils, v_sources, v_errors
      from (select c.id, max(u.until) as until, string_agg(u.source, ', ' order by u.source) as sources,
                   min(u.error) as error
              from lapse.files_in_use(p_storages, p_paths) as u
              join unnest(p_ids, p_storages, p_paths) as c (id, storage, path)
                on c.storage = u.storage and c.path = u.path
             where u.until > clock_timestamp()
             group by c.id) as n;

    if v_ids is null then
        return '{}';
    end if;

    insert into lapse.file_cleanup_log
           (queue_id, storage, path, reason, source_table, source_id, outcome, worker, attempts, note, enqueued_at,
            not_before)
    select q.id, q.storage, q.path, q.reason, q.source_table, q.source_id, 'in_use', q.leased_by, q.attempts,
           'needed, says file source ' || n.sources, q.enqueued_at, q.not_before
      from unnest(v_ids, v_untils, v_sources) as n (id, until, sources)
     cross join lateral (select q.* from lapse.file_cleanup_queue as q where q.id = n.id offset 0) as q
     where n.until = 'infinity';

    delete from lapse.file_cleanup_queue as q
     where q.again_at is null
       and q.id = any (array(select n.id from unnest(v_ids, v_untils) as n (id, until) where n.until = 'infinity'));

    update lapse.file_cleanup_queue as q
       set not_before   = case when n.until = 'infinity' then q.again_at
                             else greatest(n.until, clock_timestamp() + interval '1 s') end,
           again_at     = case when n.until = 'infinity' then null else q.again_at end,
           attempts     = case when n.until = 'infinity' then 0 else greatest(q.attempts - 1, 0) end,
           last_error   = case when n.until = 'infinity' then null else coalesce(n.error, q.last_error) end,
           leased_at    = null,
           leased_until = null,
           leased_by    = null,
           lease_token  = null,
           lease_size   = null
      from unnest(v_ids, v_untils, v_errors) as n (id, until, error)
     cross join lateral (select f.ctid as place from lapse.file_cleanup_queue as f where f.id = n.id offset 0) as f
     where q.ctid = f.place;

    return v_ids;
end;
$$;

comment on function lapse.keep_files_in_use(bigint[], text[], text[]) is
    'Internal: take files that a source still needs out of a claim; returns the numbers of their rows.';
