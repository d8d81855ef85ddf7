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
-- NOTIFY in each commit would cost the application three quarters of its throughput. The plan
-- is the same for one file and for a million, and planning anew each time doubles the price of one.
-- One file that is not queued yet, which is what a transaction of an application mostly brings, takes a
-- statement of its own: to set up the one that merges costs more than all else.

create or replace function lapse.enqueue_files(p_files lapse.file_request[])
    returns bigint
    language plpgsql
    volatile
    security definer  -- an application needs no right on the queue itself
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
    set plan_cache_mode = force_generic_plan
as $$
declare
    v_only      lapse.file_request := p_files[1];
    v_due       timestamptz;
    v_bad       bigint;
    v_long      bigint;
    v_malformed bigint;
    v_guarded   boolean;
    v_count     bigint;
    v_nudge     boolean;
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

    select min(f.position) filter (where f.storage is null or f.path is null),
           min(f.position) filter (where octet_length(f.storage) > 200),
           min(f.position) filter (where f.expected is not null and lapse.file_guard(f.expected) is null),
           bool_or(f.expected is not null)
      into v_bad, v_long, v_malformed, v_guarded
      from unnest(p_files) with ordinality
           as f (storage, path, not_before, reason, source_table, source_id, expected, position);

    if v_bad is not null then
        raise exception 'file request % has no storage or no path', v_bad
            using errcode = 'LP001',
                  hint = 'Give both: row(storage, path, not_before, reason, source_table, source_id, expected).';
    end if;

    if v_long is not null then
        raise exception 'the name of file request %''s storage is longer than 200 bytes', v_long
            using errcode = 'LP001', hint = 'A storage goes by the name that it has in the workers'' configuration.';
    end if;

    if v_malformed is not null then
        raise exception 'file request % says of the file what can''t be', v_malformed
            using errcode = 'LP001',
                  hint = 'Expected is {"size": 1, "mtime_ns": 2, "etag": "x"}, one of them at least, or an array of '
                         '1 to 32 such alternatives.';
    end if;

    if v_guarded then
        p_files := array(
            select row(f.storage, f.path, f.not_before, f.reason, f.source_table, f.source_id,
                       lapse.united_guard(array_agg(lapse.file_guard(f.expected)) over same))::lapse.file_request
              from unnest(p_files) with ordinality
                   as f (storage, path, not_before, reason, source_table, source_id, expected, position)
            window same as (partition by f.storage, f.path order by f.position
                            rows between unbounded preceding and unbounded following)
             order by f.position);
    end if;

    with asked as (
        select distinct on (f.storage, f.digest) f.*
          from (select r.*, lapse.path_digest(r.path) as digest
                  from unnest(p_files) with ordinality
                       as r (storage, path, not_before, reason, source_table, source_id, expected, position)) as f
         order by f.storage, f.digest, coalesce(f.not_before, now()), f.position
    ),
    written as (
        insert into lapse.file_cleanup_queue as q
               (storage, path, reason, source_table, source_id, expected, not_before, generation)
        select a.storage, a.path, coalesce(a.reason, 'requested'), a.source_table, a.source_id, a.expected,
               coalesce(a.not_before, now()), 1
          from asked as a
         order by a.storage, a.digest
        on conflict (storage, lapse.path_digest(path)) do update
           set generation   = least(greatest(q.generation, 0), 2147483646) + 1,
               not_before   = case
                                  when q.dead_at is not null then excluded.not_before
                                  when q.lease_token is not null or q.attempts > 0 then q.not_before
                                  else least(q.not_before, excluded.not_before)
                              end,
               again_at     = case
                                  when q.dead_at is not null then null
                                  when q.lease_token is not null then least(q.again_at, excluded.not_before)
                                  else q.again_at
                              end,
               -- A cancelled row that a worker holds stays cancelled: only the new request is tried again.
               cancelled_at = case when q.dead_at is null and q.lease_token is not null then q.cancelled_at end,
               -- The request that comes due first says why; it makes no difference for a row in a worker's hands.
               reason       = case when q.dead_at is not null or excluded.not_before < q.not_before
                                   then excluded.reason else q.reason end,
               source_table = case when q.dead_at is not null or excluded.not_before < q.not_before
                                   then excluded.source_table else q.source_table end,
               source_id    = case when q.dead_at is not null or excluded.not_before < q.not_before
                                   then excluded.source_id else q.source_id end,
               -- What a worker holds keeps its own guard: once it is done, only those who asked meanwhile are heard.
               expected     = case
                                  when q.dead_at is not null then excluded.expected
                                  when q.lease_token is not null or q.expected is null
                                       or q.expected = excluded.expected then q.expected
                                  else lapse.united_guard(array[q.expected, excluded.expected])
                              end,
               again_expected = case
                                  when q.dead_at is not null then null
                                  when q.lease_token is null then q.again_expected
                                  when q.again_at is null then excluded.expected
                                  else lapse.united_guard(array[q.again_expected, excluded.expected])
                              end,
               enqueued_at  = case when q.dead_at is not null then now() else q.enqueued_at end,
               attempts     = case when q.dead_at is not null then 0 else q.attempts end,
               lost         = case when q.dead_at is not null then 0 else q.lost end,
               last_error   = case when q.dead_at is null then q.last_error end,
               leased_at    = case when q.dead_at is null then q.leased_at end,
               leased_until = case when q.dead_at is null then q.leased_until end,
               leased_by    = case when q.dead_at is null then q.leased_by end,
               lease_token  = case when q.dead_at is null then q.lease_token end,
               lease_size   = case when q.dead_at is null then q.lease_size end,
               dead_at      = null
        returning q.not_before, q.lease_token
    )
    select count(*), bool_or(w.lease_token is null and w.not_before <= clock_timestamp() + s.notify_horizon)
      into v_count, v_nudge
      from written as w cross join lapse.setting as s;

    if v_nudge then
        perform pg_notify('file_cleanup_queue', '');
    end if;

    return v_count;
end;
$$;

comment on function lapse.enqueue_files(lapse.file_request[]) is
    'Queue files for deletion in this transaction, merging with rows already queued; returns rows written or merged.';
