-- lapse.lock_due_files: lock a stretch of one storage's due rows for a claim, and say which need care.
--
-- In: the storage; the time of the claim; the stretch of due order, from behind one position up
-- to another; how many at most. Out: how many were locked and where the last of them stands; the places
-- of those to hand out (free); of those whose worker never reported back (lost); and the numbers of
-- those not to be tried any more (odd): cancelled meanwhile, attempts used up, or lost alone too
-- often. A row lost in company has used up nothing: nobody knows yet which of them it was.
--
-- Rows locked by others are skipped. Only the index of due rows offers their order, and sorting is
-- off: another plan, as statistics taken at a bad moment suggest it, would read all rows of the
-- storage. Materialized, and updated by place afterwards: under another plan an update that holds
-- the limited query inside has taken more rows than the limit. Places hold while the locks do.

create or replace function lapse.lock_due_files(
    p_storage   text,
    p_now       timestamptz,
    p_after_due timestamptz,
    p_after_id  bigint,
    p_until_due timestamptz,
    p_until_id  bigint,
    p_limit     integer,
    p_setting   lapse.setting,
    out picked   integer,
    out free     tid[],
    out lost     tid[],
    out odd      bigint[],
    out last_due timestamptz,
    out last_id  bigint
)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set enable_bitmapscan = off
    set enable_sort = off
    set jit = off
as $$
#variable_conflict use_column
begin
    with due as materialized (
        select q.ctid as place, q.id, q.not_before, q.lease_token is not null as lost,
               q.cancelled_at is not null
               or case when q.lease_token is null then q.attempts >= p_setting.max_attempts
                       when coalesce(q.lease_size, 2) > 1 then false
                       else q.attempts >= p_setting.max_attempts or q.lost >= p_setting.max_lost - 1 end as odd
          from lapse.file_cleanup_queue as q
         where q.dead_at is null
           and q.storage = p_storage
           and (q.not_before, q.id) > (p_after_due, p_after_id)
           and (q.not_before, q.id) <= (p_until_due, p_until_id)
           and (q.leased_until is null or q.leased_until <= p_now)
         order by q.not_before, q.id
         limit p_limit
           for update skip locked
    )
    select count(*)::integer,
           array_agg(d.place) filter (where not d.odd and not d.lost),
           array_agg(d.place) filter (where not d.odd and d.lost),
           array_agg(d.id) filter (where d.odd),
           (array_agg(d.not_before))[count(*)],
           (array_agg(d.id))[count(*)]
      into picked, free, lost, odd, last_due, last_id
      from due as d;
end;
$$;

comment on function lapse.lock_due_files(text, timestamptz, timestamptz, bigint, timestamptz, bigint, integer, lapse.setting) is
    'Internal: lock a stretch of one storage''s due rows: which to hand out, which were lost, which to end.';
