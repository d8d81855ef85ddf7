-- lapse.enqueue_paths: condemn many files for one reason, as the triggers of lapse.attach_files do.
--
-- In: storages and paths side by side, in the order of (storage, lapse.path_digest(path)), none NULL; when
-- they may go, and where some go at another time, when each does (NULL: with the others); why; which table,
-- and the keys of the rows that asked. Out: how many files there are. The rules are those of lapse.enqueue_files.
--
-- Most files that a statement condemns are not queued yet, nor twice among them. So they are written as they come, by
-- an INSERT that knows of no conflicts and costs a third less than one that does; should there be one after all, it
-- is undone, and all go through the statement that merges. The order is random to whatever is queued, so where
-- much is, the first conflict comes early. Arrays of texts cost a third of what composites do. Whoever gives another order
-- than that of the queue's key may run into a deadlock.

create or replace function lapse.enqueue_paths(
    p_storages     text[],
    p_paths        text[],
    p_due          timestamptz,
    p_reason       text,
    p_source_table text,
    p_source_ids   text[],
    p_dues         timestamptz[] default null
)
    returns bigint
    language plpgsql
    volatile
    security definer  -- the owner of a table needs no right on the queue itself
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
    set plan_cache_mode = force_generic_plan
as $$
declare
    v_files  bigint := coalesce(cardinality(p_paths), 0);
    v_first  timestamptz := coalesce(p_due, now());
    v_merged boolean := false;
begin
    if v_files = 1 then
        v_first := coalesce(p_dues[1], v_first);

        insert into lapse.file_cleanup_queue (storage, path, reason, source_table, source_id, not_before, generation)
        values (p_storages[1], p_paths[1], p_reason, p_source_table, p_source_ids[1], v_first, 1)
        on conflict (storage, lapse.path_digest(path)) do nothing;
        v_merged := not found;
    else
        if p_dues is not null then
            v_first := least(v_first, (select min(d.due) from unnest(p_dues) as d (due)));
        end if;

        begin
            insert into lapse.file_cleanup_queue (storage, path, reason, source_table, source_id, not_before, generation)
            select f.storage, f.path, p_reason, p_source_table, f.source_id, coalesce(f.due, p_due, now()), 1
              from unnest(p_storages, p_paths, p_source_ids, p_dues) as f (storage, path, source_id, due);
        exception when unique_violation then
            v_merged := true;
        end;
    end if;

    if v_merged then
        perform lapse.enqueue_files(array(
            select row(f.storage, f.path, coalesce(f.due, p_due), p_reason, p_source_table, f.source_id, null)::lapse.file_request
              from unnest(p_storages, p_paths, p_source_ids, p_dues) as f (storage, path, source_id, due)));
    -- The horizon is an hour at most: what is due later needs no look at it.
    elsif v_first <= clock_timestamp() + interval '1 hour'
          and v_first <= clock_timestamp() + (select s.notify_horizon from lapse.setting as s) then
        perform pg_notify('file_cleanup_queue', '');
    end if;

    return v_files;
end;
$$;

comment on function lapse.enqueue_paths(text[], text[], timestamptz, text, text, text[], timestamptz[]) is
    'Queue files for one reason, given in the order of the queue''s key: what the triggers of lapse.attach_files call.';
