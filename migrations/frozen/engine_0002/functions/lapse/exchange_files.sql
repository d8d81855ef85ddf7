-- lapse.exchange_files: hand in the results of the last batches and take the next, in one round trip.
--
-- In: the worker's name; results, a JSON array of {"id", "token", "outcome", "bytes", "error"} with
-- outcome deleted, missing (both: done), changed (not the file that was meant any more, left alone: done
-- too), failed (try again later), refused (dead at once) or released (given back, the attempt doesn't
-- count); which storages to take files of (none: {}; NULL: all that are queued) and, side by side,
-- how many of each (NULL: 500); for how long; and where to go on in each (NULL: from the start). Going on
-- where the last claim said keeps it fast behind many rows just finished; now and then begin
-- from the start all the same, since rows that come back stand there.
-- Out, told apart by kind:
--   claimed    a file to delete: id, token, storage, path, attempt, due; expected: what it must
--              still be; alone: such a batch may have killed a worker. Finish all else first, then
--              this, and nothing beside it;
--   next       there is more in this storage: due and id are where to go on;
--   wait       fewer files of this storage than asked for: wait_seconds until there may be more, NULL
--              for never (storage NULL: nothing at all is queued);
--   unsettled  a result that could not be recorded now: hand it in again;
--   stale      a result that doesn't count any more: forget it;
--   halted     no files are handed out, and note says why: the database is a copy that nobody adopted. Each
--              storage has its wait as well, and lapse.adopt_database sends a nudge.
-- LP001 for bad arguments, LP012 at another isolation level than read committed; then nothing happens.
--
-- Nothing in here waits for an application's lock; a file source that does is cut off. Rows are
-- hidden from nobody: where row-level security would, it is an error. The plans are those for any
-- batch, through the indexes: no statistics of a queue that was just filled or emptied are true,
-- and a plan made for an empty queue, which read it whole, would be kept for a full one.

create or replace function lapse.exchange_files(
    p_worker     text,
    p_results    jsonb         default '[]',
    p_storages   text[]        default null,
    p_limits     integer[]     default null,
    p_lease      interval      default '60 s',
    p_after_dues timestamptz[] default null,
    p_after_ids  bigint[]      default null
)
    returns table (kind text, id bigint, token bigint, storage text, path text, attempt integer, due timestamptz,
                   expected jsonb, alone boolean, wait_seconds double precision, note text)
    language plpgsql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set jit = off
    set row_security = off
    set lock_timeout = '250ms'
as $$
#variable_conflict use_column
begin
    return query
    select b.kind, coalesce(f.id, b.id), b.token, b.storage, f.path, f.attempt, coalesce(f.due, b.due), f.expected, b.alone,
           b.wait_seconds, b.note
      from lapse.exchange_batches(p_worker, p_results, p_storages, p_limits, p_lease, p_after_dues, p_after_ids,
                                  '{}', '{}', '{}') as b
      left join lateral unnest(b.ids, b.paths, b.attempts, b.dues, b.expecteds)
                as f (id, path, attempt, due, expected) on true;
end;
$$;

comment on function lapse.exchange_files(text, jsonb, text[], integer[], interval, timestamptz[], bigint[]) is
    'For workers: hand in the results of the last batches of files and lease the next ones.';
