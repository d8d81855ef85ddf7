-- lapse.claim_files: the second half of lapse.exchange_files: the next files to delete.
--
-- In: the worker, how many, for how long, and the resume point: the due time and number
-- of the last row of the batch before. Out: one row a file ('claimed'), in due order, and
-- one row ('wait') when there are fewer than asked for. A due time before 1970 is given as 1970:
-- a worker's language may know no -infinity.
--
-- A claim writes no indexed column, so it is a HOT update. It counts the attempt before the
-- work begins: a file whose worker dies each time comes to an end too. The file sources are
-- asked after the rows are locked, in a statement of its own, so that they see every
-- reference committed before the claim. Time is the server's, read once.

create or replace function lapse.claim_files(
    p_worker    text,
    p_limit     integer,
    p_lease     interval,
    p_after_due timestamptz,
    p_after_id  bigint
)
    returns table (kind text, id bigint, token bigint, storage text, path text, attempt integer, due timestamptz,
                   wait_seconds double precision)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now      timestamptz := clock_timestamp();
    v_token    bigint      := nextval('lapse.lease_token_seq');
    v_max      integer     := (select s.max_attempts from lapse.setting as s);
    v_picked   integer;
    v_ids      bigint[];
    v_odd      bigint[];
    v_storages text[];
    v_paths    text[];
    v_attempts integer[];
    v_dues     timestamptz[];
    v_needed   bigint[];
begin
    -- Materialized, and updated by number afterwards: under another plan an update that holds
    -- the limited query inside has taken more rows than the limit.
    with due as materialized (
        select q.id, q.cancelled_at is not null or q.attempts >= v_max as odd
          from lapse.file_cleanup_queue as q
         where q.dead_at is null
           and q.not_before <= v_now
           and (q.not_before, q.id) > (p_after_due, p_after_id)
           and (q.leased_until is null or q.leased_until <= v_now)
         order by q.not_before, q.id
         limit p_limit
           for update skip locked
    )
    select count(*), array_agg(d.id) filter (where not d.odd), array_agg(d.id) filter (where d.odd)
      into v_picked, v_ids, v_odd
      from due as d;

    if v_odd is not null then
        perform lapse.end_files(v_odd);
    end if;

    with claimed as (
        update lapse.file_cleanup_queue as q
           set leased_at    = v_now,
               leased_until = v_now + p_lease,
               leased_by    = p_worker,
               lease_token  = v_token,
               attempts     = greatest(q.attempts, 0) + 1,
               again_at     = case when q.again_at > v_now then q.again_at end
         where q.id = any (v_ids)
        returning q.id, q.storage, q.path, q.attempts, q.not_before
    )
    select array_agg(c.id order by c.not_before, c.id),
           array_agg(c.storage order by c.not_before, c.id),
           array_agg(c.path order by c.not_before, c.id),
           array_agg(c.attempts order by c.not_before, c.id),
           array_agg(c.not_before order by c.not_before, c.id)
      into v_ids, v_storages, v_paths, v_attempts, v_dues
      from claimed as c;

    if v_ids is not null and exists (select from lapse.file_source) then
        v_needed := lapse.keep_files_in_use(v_ids, v_storages, v_paths);
    end if;

    return query
    select 'claimed', c.id, v_token, c.storage, c.path, c.attempts, greatest(c.due, 'epoch'), null::double precision
      from unnest(v_ids, v_storages, v_paths, v_attempts, v_dues) with ordinality
           as c (id, storage, path, attempts, due, position)
     where c.id <> all (coalesce(v_needed, '{}'))
     order by c.position;

    if coalesce(cardinality(v_ids), 0) - coalesce(cardinality(v_needed), 0) < p_limit then
        return query
        select 'wait', null::bigint, null::bigint, null::text, null::text, null::integer, null::timestamptz,
               case when v_picked = p_limit then 0
                    else lapse.next_file_in(v_now, p_after_due, p_after_id) end;
    end if;
end;
$$;

comment on function lapse.claim_files(text, integer, interval, timestamptz, bigint) is
    'Internal, second half of lapse.exchange_files: lease the next due files that nothing needs.';
