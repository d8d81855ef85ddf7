-- lapse.keep_files_in_use: keep from a claim the files that something still needs.
--
-- In: the worker, for the log, and the places of rows that the caller has locked and is about to hand
-- out. Out: the places of those needed, which are dealt with and must not be handed out.
-- Needed for good: the row leaves the queue, logged as in_use, unless the file was asked for
-- again, then it waits for that time. Needed until a time: it waits until then, and no attempt
-- is counted; that is a second at least, so that no source keeps a worker
-- busy with one file. The longest answer of all sources holds; a time that has passed
-- is no need. A file whose row somebody holds (lapse.hold) waits ten minutes, and again, until it is released. As in lapse.settle_files, each row is looked up, and nothing depends on statistics.

create or replace function lapse.keep_files_in_use(p_worker text, p_places tid[])
    returns tid[]
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_places   tid[];
    v_storages text[];
    v_paths    text[];
    v_untils   timestamptz[];
    v_sources  text[];
    v_errors   text[];
begin
    select array_agg(q.ctid), array_agg(q.storage), array_agg(q.path)
      into v_places, v_storages, v_paths
      from lapse.file_cleanup_queue as q
     where q.ctid = any (p_places);

    select array_agg(n.place), array_agg(n.until), array_agg(n.sources), array_agg(n.error)
      into v_places, v_untils, v_sources, v_errors
      from (select a.place, max(a.until) as until, string_agg(a.source, ', ' order by a.source) as sources,
                   min(a.error) as error
              from (select c.place, u.until, u.source, u.error
                      from lapse.files_in_use(v_storages, v_paths) as u
                      join unnest(v_places, v_storages, v_paths) as c (place, storage, path)
                        on c.storage = u.storage and c.path = u.path
                     where u.until > clock_timestamp()
                    union all
                    select h.place, clock_timestamp() + interval '10 minutes', null, 'held: ' || h.reason
                      from lapse.held_files(p_places) as h) as a
             group by a.place) as n;

    if v_places is null then
        return '{}';
    end if;

    insert into lapse.file_cleanup_log
           (queue_id, storage, path, reason, source_table, source_id, outcome, worker, attempts, note, enqueued_at,
            not_before)
    select q.id, q.storage, q.path, q.reason, q.source_table, q.source_id, 'in_use', p_worker, greatest(q.attempts, 0),
           'needed, says file source ' || n.sources, q.enqueued_at, q.not_before
      from unnest(v_places, v_untils, v_sources) as n (place, until, sources)
      join lapse.file_cleanup_queue as q on q.ctid = n.place
     where n.until = 'infinity';

    delete from lapse.file_cleanup_queue as q
     where q.again_at is null
       and q.ctid = any (array(select n.place from unnest(v_places, v_untils) as n (place, until)
                                where n.until = 'infinity'));

    update lapse.file_cleanup_queue as q
       set not_before   = case when n.until = 'infinity' then q.again_at
                               else greatest(n.until, clock_timestamp() + interval '1 s') end,
           again_at     = case when n.until = 'infinity' or q.again_at <= clock_timestamp() then null else q.again_at end,
           expected     = case when n.until = 'infinity' then q.again_expected
                               when q.again_at <= clock_timestamp()
                               then lapse.united_guard(array[q.expected, q.again_expected])
                               else q.expected end,
           attempts     = case when n.until = 'infinity' then 0 else greatest(q.attempts, 0) end,
           lost         = case when n.until = 'infinity' then 0 else q.lost end,
           last_error   = case when n.until = 'infinity' then null else coalesce(n.error, q.last_error) end,
           leased_at    = null,
           leased_until = null,
           leased_by    = null,
           lease_token  = null,
           lease_size   = null
      from unnest(v_places, v_untils, v_errors) as n (place, until, error)
     where q.ctid = n.place;

    return v_places;
end;
$$;

comment on function lapse.keep_files_in_use(text, tid[]) is
    'Internal: take files that a source still needs out of a claim; returns the places of their rows.';
