-- lapse.merge_files: write requests into the queue, each merged with what is queued for its file.
--
-- In, out and errors as of lapse.enqueue_files, which says what merging means. The plan is the same for one
-- file and for a million, and planning anew each time doubles the price of one.

create or replace function lapse.merge_files(p_files lapse.file_request[])
    returns bigint
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
    set plan_cache_mode = force_generic_plan
as $$
declare
    v_bad       bigint;
    v_long      bigint;
    v_malformed bigint;
    v_guarded   boolean;
    v_count     bigint;
    v_nudge     boolean;
begin
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

comment on function lapse.merge_files(lapse.file_request[]) is
    'Internal: queue files, merging with rows already queued; returns rows written or merged.';
