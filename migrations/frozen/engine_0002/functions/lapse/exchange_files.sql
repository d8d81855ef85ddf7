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
declare
    v_each integer;
begin
    if p_worker is null or p_worker = '' then
        raise exception 'a worker needs a name'
            using errcode = 'LP001', hint = 'Give the name that lapse.worker_hello was given.';
    end if;

    if p_results is null or jsonb_typeof(p_results) <> 'array' then
        raise exception 'the results are malformed: not a JSON array'
            using errcode = 'LP001', hint = 'Give [] when there are none.';
    end if;

    if p_lease is null or p_lease <= interval '0' or p_lease > interval '1 day' then
        raise exception 'can''t lease files for %', coalesce(p_lease::text, 'NULL')
            using errcode = 'LP001', hint = 'Give a lease of more than nothing and at most one day.';
    end if;

    -- A snapshot older than the rows' locks would miss references committed just before the claim.
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'files are exchanged at isolation level read committed only'
            using errcode = 'LP012', hint = 'begin isolation level read committed';
    end if;

    perform lapse.check_claim(p_storages, p_limits, p_after_dues, p_after_ids);

    return query
    select s.kind, s.id, s.token, s.storage, s.path, null::integer, null::timestamptz, null::jsonb, null::boolean,
           null::double precision, s.note
      from lapse.settle_files(p_worker, p_results) as s;

    if p_storages is distinct from '{}' and (p_limits is null or 0 < any (p_limits)) then
        note := lapse.halt_reason();

        if note is not null then
            kind := 'halted';
            return next;

            return query
            select 'wait', null::bigint, null::bigint, s.name, null, null::integer, null::timestamptz, null::jsonb,
                   null::boolean, 10::double precision, null
              from unnest(coalesce(p_storages, array[null])) with ordinality as s (name, position)
             where p_limits[s.position] is distinct from 0;
            return;
        end if;
    end if;

    if p_storages is null then
        p_storages := lapse.queued_storages();
        v_each := coalesce(p_limits[1], 500);
        p_limits := array_fill(v_each, array[cardinality(p_storages)]);

        if p_storages = '{}' and v_each > 0 then
            kind := 'wait';
            return next;
        end if;
    end if;

    if p_storages <> '{}' then
        return query
        select c.kind, c.id, c.token, c.storage, c.path, c.attempt, c.due, c.expected, c.alone, c.wait_seconds, null::text
          from lapse.claim_files(p_worker, p_storages,
                                 coalesce(p_limits, array_fill(500, array[cardinality(p_storages)])),
                                 p_lease, p_after_dues, p_after_ids) as c;
    end if;
end;
$$;

comment on function lapse.exchange_files(text, jsonb, text[], integer[], interval, timestamptz[], bigint[]) is
    'For workers: hand in the results of the last batches of files and lease the next ones.';
