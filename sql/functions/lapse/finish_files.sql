-- lapse.finish_files: rows whose file is done with leave the queue for the log.
--
-- In: the worker; the places of rows that the caller has locked; and results, side by side, among
-- which are those of these rows: place, outcome, bytes, what the worker said.
--
-- The rows are found by one scan over their places, in the order in which they lie, and get their
-- results by hashing: to look up the place of each result by itself asks for the size of the
-- table each time. Without the settings below a join of two lists of unknown length is planned as a loop
-- in a loop.

create or replace function lapse.finish_files(
    p_worker   text,
    p_rows     tid[],
    p_places   tid[],
    p_outcomes text[],
    p_bytes    bigint[],
    p_errors   text[]
)
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set enable_nestloop = off
    set enable_mergejoin = off
    set jit = off
as $$
begin
    with finished as (
        delete from lapse.file_cleanup_queue as q
         where q.ctid = any (p_rows)
        returning q.ctid as place, q.id, q.storage, q.path, q.reason, q.source_table, q.source_id, q.attempts,
                  q.cancelled_at, q.enqueued_at, q.not_before
    )
    insert into lapse.file_cleanup_log
           (queue_id, storage, path, reason, source_table, source_id, outcome, bytes, worker, attempts, note,
            enqueued_at, not_before)
    select f.id, f.storage, f.path, f.reason, f.source_table, f.source_id, r.outcome, r.bytes, p_worker, f.attempts,
           case when f.cancelled_at is not null and r.outcome <> 'changed'
                then 'cancelled too late: a worker held it already' else r.error end,
           f.enqueued_at, f.not_before
      from finished as f
      join unnest(p_places, p_outcomes, p_bytes, p_errors) as r (place, outcome, bytes, error) on r.place = f.place;
end;
$$;

comment on function lapse.finish_files(text, tid[], tid[], text[], bigint[], text[]) is
    'Internal: move rows whose file is done with from the queue to the log.';
