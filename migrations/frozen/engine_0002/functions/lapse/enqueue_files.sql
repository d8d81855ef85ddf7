-- lapse.enqueue_files: condemn files, in the transaction that no longer needs them.
--
-- In: requests; a NULL not_before means now. Out: how many rows were written or
-- merged. LP001 for a request without storage or path, with a storage's name that is too long, or with
-- a guard that can't be one, and then nothing is queued.
--
-- A file needs deleting once, so a request for a queued file is merged into its row:
--   dead             revived, with its attempts forgotten;
--   held by a worker marked to be done again (again_at), since the worker may already
--                    have deleted what this request is about;
--   backing off      keeps its backoff;
--   waiting          keeps the earlier time.
-- What the requests say that the file must still be (lapse.file_guard) is united: any of it will do, and
-- a request that says nothing wants the file gone whatever it is. What is asked for while a worker holds
-- the file is kept apart: once the worker is done, only that is heard.
-- Rows are written in (storage, digest) order, so that two statements that queue the
-- same files in another order wait for each other instead of deadlocking. Workers are
-- nudged at commit, and only for what is due within lapse.setting.notify_horizon: a
-- NOTIFY in each commit would cost the application three quarters of its throughput.
--
-- One file that is not queued yet, which is what a transaction of an application mostly brings, takes a
-- short statement of its own here. All else, and the settings that it needs, are lapse.merge_files: to set
-- them up costs more than the row.

create or replace function lapse.enqueue_files(p_files lapse.file_request[])
    returns bigint
    language plpgsql
    volatile
    security definer  -- an application needs no right on the queue itself
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_only lapse.file_request := p_files[1];
    v_due  timestamptz;
begin
    if cardinality(p_files) = 1 and v_only.path is not null and octet_length(v_only.storage) <= 200
       and v_only.expected is null then
        v_due := coalesce(v_only.not_before, now());

        insert into lapse.file_cleanup_queue
               (storage, path, reason, source_table, source_id, not_before, generation)
        values (v_only.storage, v_only.path, coalesce(v_only.reason, 'requested'), v_only.source_table,
                v_only.source_id, v_due, 1)
        on conflict (storage, lapse.path_digest(path)) do nothing;

        if found then
            -- The horizon is an hour at most: what is due later needs no look at it.
            if v_due <= clock_timestamp() + interval '1 hour'
               and v_due <= clock_timestamp() + (select s.notify_horizon from lapse.setting as s) then
                perform pg_notify('file_cleanup_queue', '');
            end if;

            return 1;
        end if;
    end if;

    return lapse.merge_files(p_files);
end;
$$;

comment on function lapse.enqueue_files(lapse.file_request[]) is
    'Queue files for deletion in this transaction, merging with rows already queued; returns rows written or merged.';
