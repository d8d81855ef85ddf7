-- lapse.settle_files: the first half of lapse.exchange_files: what became of files handed out before.
--
-- In: the worker and its results. Out: results that could not be settled now ('unsettled':
-- somebody has the row, or a row that refers to the file, locked: hand in again) and those
-- that don't count any more ('stale': the lease ended and another worker took the row, or
-- the row is gone). LP001 for malformed results, and then nothing happens.
--
-- The token decides whether a result counts, under the row's lock, so a late worker can't
-- touch a row that was claimed again. Rows are locked by number, skipping locked ones: an
-- application's open transaction must not stall a worker. Each result looks up its own row:
-- a join is planned by statistics, and those of a queue that was vacuumed while a large
-- transaction filled it say that it is empty; then each row of the queue was compared with
-- each result ("offset 0" keeps the lookup from becoming a join).

create or replace function lapse.settle_files(p_worker text, p_results jsonb)
    returns table (kind text, id bigint, token bigint, storage text, path text, note text)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now            timestamptz := clock_timestamp();
    v_setting        lapse.setting;
    v_tell           boolean := exists (select from lapse.file_source as s where s.removed is not null);
    v_bad            bigint;
    v_ids            bigint[];  -- what was handed in
    v_tokens         bigint[];
    v_outcomes       text[];
    v_bytes          bigint[];
    v_errors         text[];
    v_done           tid[];     -- rows that leave the queue
    v_done_outcomes  text[];
    v_done_bytes     bigint[];
    v_done_errors    text[];
    v_rest           tid[];     -- rows that stay, or were cancelled
    v_rest_outcomes  text[];
    v_rest_bytes     bigint[];
    v_rest_errors    text[];
    v_open           bigint[];  -- rows that were not to be had
    v_open_tokens    bigint[];
    v_gone           tid[];     -- rows whose file is gone, where somebody is to be told
    v_gone_ids       bigint[];
    v_gone_tokens    bigint[];
    v_storages       text[];
    v_paths          text[];
    v_claimed        timestamptz[];
    v_unsettled      tid[] := '{}';  -- those of them of whom somebody could not be told
    v_notes          text[];
    v_nudge          boolean;
begin
    begin
        select array_agg(r.id), array_agg(r.token), array_agg(r.outcome), array_agg(r.bytes),
               array_agg(left(r.error, 2000)),
               min(r.position) filter (where r.id is null or r.token is null or coalesce(r.bytes, 0) < 0
                                          or r.outcome is null
                                          or r.outcome not in ('deleted', 'missing', 'changed', 'failed', 'refused', 'released'))
          into v_ids, v_tokens, v_outcomes, v_bytes, v_errors, v_bad
          from rows from (jsonb_to_recordset(p_results)
                          as (id bigint, token bigint, outcome text, bytes bigint, error text))
               with ordinality as r (id, token, outcome, bytes, error, position);
    exception when data_exception then
        raise exception 'the results are malformed: %', sqlerrm
            using errcode = 'LP001',
                  hint = 'Give a JSON array of {"id": 1, "token": 2, "outcome": "deleted", "bytes": 3}.';
    end;

    if v_bad is not null then
        raise exception 'result % has no id, token or known outcome, or negative bytes', v_bad
            using errcode = 'LP001', hint = 'Outcomes are deleted, missing, changed, failed, refused and released.';
    end if;

    if v_ids is null then
        return;
    end if;

    with handed as materialized (
        select distinct on (r.id, r.token) r.*
          from unnest(v_ids, v_tokens, v_outcomes, v_bytes, v_errors) with ordinality
               as r (id, token, outcome, bytes, error, position)
         order by r.id, r.token, r.position
    ),
    judged as (
        select h.id, h.token, h.outcome, h.bytes, h.error, l.place, l.storage, l.path, l.leased_at,
               l.place is not null and l.again_at is null and h.outcome in ('deleted', 'missing', 'changed') as done
          from handed as h
          left join lateral (select q.ctid as place, q.storage, q.path, q.again_at, q.leased_at
                               from lapse.file_cleanup_queue as q
                              where q.id = h.id and q.lease_token = h.token
                             offset 0
                                for update skip locked) as l on true
        offset 0
    )
    select array_agg(j.place) filter (where j.done),
           array_agg(j.outcome) filter (where j.done),
           array_agg(j.bytes) filter (where j.done),
           array_agg(j.error) filter (where j.done),
           array_agg(j.place) filter (where not j.done and j.place is not null),
           array_agg(j.outcome) filter (where not j.done and j.place is not null),
           array_agg(j.bytes) filter (where not j.done and j.place is not null),
           array_agg(j.error) filter (where not j.done and j.place is not null),
           array_agg(j.id) filter (where j.place is null),
           array_agg(j.token) filter (where j.place is null),
           -- A file asked for again may have been written anew, so nobody is told until that one is gone.
           array_agg(j.place) filter (where v_tell and j.done and j.outcome <> 'changed'),
           array_agg(j.id) filter (where v_tell and j.done and j.outcome <> 'changed'),
           array_agg(j.token) filter (where v_tell and j.done and j.outcome <> 'changed'),
           array_agg(j.storage) filter (where v_tell and j.done and j.outcome <> 'changed'),
           array_agg(j.path) filter (where v_tell and j.done and j.outcome <> 'changed'),
           array_agg(j.leased_at) filter (where v_tell and j.done and j.outcome <> 'changed')
      into v_done, v_done_outcomes, v_done_bytes, v_done_errors,
           v_rest, v_rest_outcomes, v_rest_bytes, v_rest_errors,
           v_open, v_open_tokens,
           v_gone, v_gone_ids, v_gone_tokens, v_storages, v_paths, v_claimed
      from judged as j;

    if v_open is not null then
        return query
        select case when k.held then 'unsettled' else 'stale' end, k.id, k.token, null::text, null::text,
               case when k.held then 'another transaction is changing the queue row' end
          from (select o.id, o.token,
                       exists (select from lapse.file_cleanup_queue as q
                                where q.id = o.id and q.lease_token = o.token) as held
                  from unnest(v_open, v_open_tokens) as o (id, token)) as k;
    end if;

    if v_gone is not null then
        select coalesce(array_agg(t.place), '{}'), array_agg(t.id), array_agg(t.token), array_agg(t.note)
          into v_unsettled, v_gone_ids, v_gone_tokens, v_notes
          from (select g.place, g.id, g.token, min(r.note) as note
                  from lapse.tell_removed(v_storages, v_paths, v_claimed) as r
                  join unnest(v_gone, v_gone_ids, v_gone_tokens, v_storages, v_paths)
                       as g (place, id, token, storage, path)
                    on g.storage = r.storage and g.path = r.path
                 group by g.place, g.id, g.token) as t;

        return query
        select 'unsettled', u.id, u.token, null::text, null::text, u.note
          from unnest(v_gone_ids, v_gone_tokens, v_notes) as u (id, token, note);
    end if;

    -- The rows are ours by now, so where they lie is the quickest way back to them.
    if v_done is not null then
        perform lapse.finish_files(p_worker, case when v_unsettled = '{}' then v_done
                                                  else array(select d.place from unnest(v_done) as d (place)
                                                              where d.place <> all (v_unsettled)) end,
                                   v_done, v_done_outcomes, v_done_bytes, v_done_errors);
    end if;

    if v_rest is null then
        return;
    end if;

    select s.* into v_setting from lapse.setting as s;

    with verdict as materialized (
        select q.ctid as place, q.*, h.outcome, h.bytes, h.error,
               case
                   when q.again_at is not null
                        and (h.outcome in ('deleted', 'missing', 'changed') or q.cancelled_at is not null) then 'again'
                   when q.cancelled_at is not null then 'cancel'
                   when h.outcome = 'released' then 'release'
                   when h.outcome = 'refused' then 'bury'
                   when q.attempts >= v_setting.max_attempts and q.again_at is null then 'bury'
                   else 'retry'
               end as fate
          from unnest(v_rest, v_rest_outcomes, v_rest_bytes, v_rest_errors) as h (place, outcome, bytes, error)
          join lapse.file_cleanup_queue as q on q.ctid = h.place
    ),
    logged as (
        insert into lapse.file_cleanup_log
               (queue_id, storage, path, reason, source_table, source_id, outcome, bytes, worker, attempts, note,
                enqueued_at, not_before)
        select v.id, v.storage, v.path, v.reason, v.source_table, v.source_id,
               case when v.outcome in ('deleted', 'missing', 'changed') then v.outcome else 'cancelled' end,
               v.bytes, p_worker, v.attempts,
               case when v.outcome in ('deleted', 'missing') and v.cancelled_at is not null
                    then 'cancelled too late: a worker held it already'
                    else v.error end,
               v.enqueued_at, v.not_before
          from verdict as v
         where v.outcome in ('deleted', 'missing', 'changed') or v.fate = 'cancel'
    ),
    cancelled as (
        delete from lapse.file_cleanup_queue as q
         using verdict as v
         where q.ctid = v.place and v.fate = 'cancel'
    ),
    kept as (
        update lapse.file_cleanup_queue as q
           set leased_at    = null,
               leased_until = null,
               leased_by    = null,
               lease_token  = null,
               lease_size   = null,
               lost         = case when v.fate = 'release' then q.lost else 0 end,
               cancelled_at = null,
               again_at     = case when v.fate in ('release', 'retry') then q.again_at end,
               expected     = case when v.fate = 'again' then q.again_expected else q.expected end,
               enqueued_at  = case when v.fate = 'again' then v_now else q.enqueued_at end,
               attempts     = case
                                  when v.fate = 'again' then 0
                                  when v.fate = 'release' then greatest(q.attempts, 1) - 1
                                  when v.fate = 'retry' and q.attempts >= v_setting.max_attempts then 0
                                  else q.attempts
                              end,
               last_error   = case when v.fate = 'again' then null else coalesce(v.error, q.last_error) end,
               not_before   = case
                                  when v.fate = 'again' then q.again_at
                                  when v.fate = 'retry'
                                  then v_now + lapse.file_backoff(q.attempts, v_setting.backoff_base,
                                                                  v_setting.backoff_cap, random())
                                  else q.not_before
                              end,
               dead_at      = case when v.fate = 'bury' then v_now end
          from verdict as v
         where q.ctid = v.place and v.fate in ('again', 'release', 'bury', 'retry')
        returning q.not_before, v.fate
    )
    -- Rows given back are due now, and other workers may be asleep; a failed one wakes nobody before its time.
    select bool_or(k.fate in ('again', 'release') and k.not_before <= v_now)
      into v_nudge
      from kept as k;

    if v_nudge then
        perform pg_notify('file_cleanup_queue', '');
    end if;
end;
$$;

comment on function lapse.settle_files(text, jsonb) is
    'Internal, first half of lapse.exchange_files: record results; returns those unsettled or stale.';
