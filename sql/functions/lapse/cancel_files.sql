-- lapse.cancel_files: take files out of the queue, because something needs them again.
--
-- In: storages and paths, pairwise. Out: those that could not be taken out, since a
-- worker holds them (the point of no return) or another transaction has their row;
-- a warning says how many. LP001 when the arrays differ in length.
--
-- A held row is marked, so that it is not tried again if the worker fails, and a
-- request to do it again is taken back. A lease that is over is no lease. The
-- caller's own change must never hang on a clean-up: rows that can be had at once are
-- taken at once, for the others it waits 100 ms once and then lets them go. Each file is looked
-- up in the index, whatever the statistics of a queue that fills and empties say.

create or replace function lapse.cancel_files(p_storages text[], p_paths text[])
    returns table (storage text, path text)
    language plpgsql
    volatile
    security definer  -- an application needs no right on the queue itself
    set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set jit = off
    set lock_timeout = '100ms'
as $$
#variable_conflict use_column
declare
    v_now    timestamptz := clock_timestamp();
    v_all    bigint[];
    v_locked bigint[];
    v_rest   bigint[];
    v_held   bigint;
begin
    if coalesce(cardinality(p_storages), 0) <> coalesce(cardinality(p_paths), 0) then
        raise exception 'got % storages and % paths', cardinality(p_storages), cardinality(p_paths)
            using errcode = 'LP001', hint = 'Give one storage for each path.';
    end if;

    select array_agg(q.id)
      into v_all
      from unnest(p_storages, p_paths) as f (storage, path)
     cross join lateral (select q.id
                           from lapse.file_cleanup_queue as q
                          where q.storage = f.storage and lapse.path_digest(q.path) = lapse.path_digest(f.path)
                         offset 0) as q;

    if v_all is null then
        return;
    end if;

    v_locked := lapse.lock_files(v_all, false);
    v_rest := array(select unnest(v_all) except select unnest(v_locked));

    if cardinality(v_rest) > 0 then
        begin
            v_locked := v_locked || lapse.lock_files(v_rest, true);
        exception when lock_not_available then
            v_locked := v_locked || lapse.lock_files(v_rest, false);
        end;
    end if;

    with gone as (
        delete from lapse.file_cleanup_queue as q
         where q.id = any (v_locked)
           and (q.leased_until is null or q.leased_until <= v_now)
        returning q.*
    )
    insert into lapse.file_cleanup_log
           (queue_id, storage, path, reason, source_table, source_id, outcome, attempts, enqueued_at, not_before)
    select g.id, g.storage, g.path, g.reason, g.source_table, g.source_id, 'cancelled', g.attempts, g.enqueued_at,
           g.not_before
      from gone as g;

    update lapse.file_cleanup_queue as q
       set cancelled_at = v_now, again_at = null
     where q.id = any (v_locked);

    return query
    select q.storage, q.path
      from lapse.file_cleanup_queue as q
     where q.id = any (v_all);
    get diagnostics v_held = row_count;

    if v_held > 0 then
        raise warning 'too late to cancel % of the files: their queue rows are in other hands', v_held
            using hint = 'A worker may be deleting them, or another transaction is changing their rows.';
    end if;
end;
$$;

comment on function lapse.cancel_files(text[], text[]) is
    'Take files out of the queue; returns those that a worker already holds or another transaction is changing.';
