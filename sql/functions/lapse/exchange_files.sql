-- lapse.exchange_files: hand in the results of the last batch and take the next, in one round trip.
--
-- In: the worker's name; results, a JSON array of {"id", "token", "outcome", "bytes", "error"} with
-- outcome deleted, missing (both: done), failed (try again later), refused (dead at once) or
-- released (given back, the attempt doesn't count); how many files to take (0: none), for how long,
-- and the resume point: due time and id of the last file of the batch before. With a resume
-- point the scan starts there, which keeps it fast behind many rows just finished; rows due
-- earlier are then not looked at, so ask once more from the start before you sleep.
-- Out, told apart by kind:
--   claimed    a file to delete: id, token, storage, path, attempt, due;
--   unsettled  a result that could not be recorded now: hand it in again;
--   stale      a result that doesn't count any more: forget it;
--   wait       fewer files than asked for: wait_seconds until there may be more, NULL for never.
-- LP001 for bad arguments, and then nothing happens.
--
-- Nothing in here waits for an application's lock; a file source that does is cut off. Rows are
-- hidden from nobody: where row-level security would, it is an error. The plans are those for any
-- batch, through the indexes: no statistics of a queue that was just filled or emptied are true,
-- and a plan made for an empty queue, which read it whole, would be kept for a full one.

create or replace function lapse.exchange_files(
    p_worker    text,
    p_results   jsonb       default '[]',
    p_limit     integer     default 500,
    p_lease     interval    default '60 s',
    p_after_due timestamptz default '-infinity',
    p_after_id  bigint      default 0
)
    returns table (kind text, id bigint, token bigint, storage text, path text, attempt integer, due timestamptz,
                   wait_seconds double precision, note text)
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
    if p_worker is null or p_worker = '' then
        raise exception 'a worker needs a name'
            using errcode = 'LP001', hint = 'Give the name that lapse.worker_hello was given.';
    end if;

    if p_results is null or jsonb_typeof(p_results) <> 'array' then
        raise exception 'the results are malformed: not a JSON array'
            using errcode = 'LP001', hint = 'Give [] when there are none.';
    end if;

    if p_limit is null or p_limit not between 0 and 10000 then
        raise exception 'can''t hand out % files', coalesce(p_limit::text, 'NULL')
            using errcode = 'LP001', hint = 'Give a limit from 0 to 10000.';
    end if;

    if p_lease is null or p_lease <= interval '0' or p_lease > interval '1 day' then
        raise exception 'can''t lease files for %', coalesce(p_lease::text, 'NULL')
            using errcode = 'LP001', hint = 'Give a lease of more than nothing and at most one day.';
    end if;

    -- A snapshot older than the rows' locks would miss references committed just before the claim.
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'files are exchanged at isolation level read committed only'
            using errcode = 'LP001', hint = 'set default_transaction_isolation = ''read committed''';
    end if;

    return query
    select s.kind, s.id, s.token, s.storage, s.path, null::integer, null::timestamptz, null::double precision, s.note
      from lapse.settle_files(p_worker, p_results) as s;

    if p_limit > 0 then
        return query
        select c.kind, c.id, c.token, c.storage, c.path, c.attempt, c.due, c.wait_seconds, null::text
          from lapse.claim_files(p_worker, p_limit, p_lease, coalesce(p_after_due, '-infinity'),
                                 coalesce(p_after_id, 0)) as c;
    end if;
end;
$$;

comment on function lapse.exchange_files(text, jsonb, integer, interval, timestamptz, bigint) is
    'For workers: hand in the results of the last batch of files and lease the next one.';
