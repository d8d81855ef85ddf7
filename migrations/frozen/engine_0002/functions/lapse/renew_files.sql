-- lapse.renew_files: a worker goes on with files for which its lease is too short.
--
-- In: the worker; numbers and tokens of rows that it holds, side by side; how long the lease is to last
-- from now. Out: those not renewed: 'stale' where the token counts no more (leave the file alone),
-- 'locked' where somebody is changing the row (try again soon). A lease that is over is renewed
-- as long as nobody else took the row, as its result would count. LP001 for bad arguments, and then nothing
-- happens. Never waits for anybody's lock.

create or replace function lapse.renew_files(p_worker text, p_ids bigint[], p_tokens bigint[], p_lease interval)
    returns table (id bigint, token bigint, kind text)
    language plpgsql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set jit = off
    set row_security = off
as $$
#variable_conflict use_column
declare
    v_open   bigint[];
    v_proofs bigint[];
    v_places tid[];
begin
    if p_worker is null or p_worker = '' then
        raise exception 'a worker needs a name'
            using errcode = 'LP001', hint = 'Give the name that lapse.worker_hello was given.';
    end if;

    if p_ids is null or p_tokens is null or array_ndims(p_ids) > 1 or array_ndims(p_tokens) > 1
       or cardinality(p_ids) <> cardinality(p_tokens)
       or array_position(p_ids, null) is not null or array_position(p_tokens, null) is not null then
        raise exception 'numbers and tokens of the rows to renew don''t match'
            using errcode = 'LP001', hint = 'Give one token, as it came with the claim, for each number.';
    end if;

    if p_lease is null or p_lease <= interval '0' or p_lease > interval '1 day' then
        raise exception 'can''t lease files for %', coalesce(p_lease::text, 'NULL')
            using errcode = 'LP001', hint = 'Give a lease of more than nothing and at most one day.';
    end if;

    select array_agg(l.place) filter (where l.place is not null),
           array_agg(h.id) filter (where l.place is null),
           array_agg(h.token) filter (where l.place is null)
      into v_places, v_open, v_proofs
      from unnest(p_ids, p_tokens) as h (id, token)
      left join lateral (select q.ctid as place
                           from lapse.file_cleanup_queue as q
                          where q.id = h.id and q.lease_token = h.token
                         offset 0
                            for update skip locked) as l on true;

    update lapse.file_cleanup_queue as q
       set leased_until = clock_timestamp() + p_lease
     where q.ctid = any (v_places);

    return query
    select o.id, o.token,
           case when exists (select from lapse.file_cleanup_queue as q where q.id = o.id and q.lease_token = o.token)
                then 'locked' else 'stale' end
      from unnest(v_open, v_proofs) as o (id, token);
end;
$$;

comment on function lapse.renew_files(text, bigint[], bigint[], interval) is
    'For workers: make the leases of files in hand last longer; returns those for which that was not possible.';
