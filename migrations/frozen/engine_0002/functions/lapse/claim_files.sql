-- lapse.claim_files: the second half of lapse.exchange_files: the next files to delete.
--
-- In: the worker; side by side the storages, how many files of each, and their resume points (NULL:
-- from the start); for how long. Out: one row a file ('claimed'), in due order within its storage;
-- for each storage that has more, where to go on ('next'); for each that came back short, how long to
-- wait ('wait'). A due time before 1970 is given as 1970: a worker's language may know no -infinity.
--
-- Each storage is claimed by itself, so that none waits for another's rows. Rows whose worker
-- never reported back stand at the front of due order, where a claim looks first. A claim that meets one
-- becomes a claim of such rows alone (lapse.lost_files), and takes nothing else of any storage.
--
-- A claim writes no indexed column, so it is a HOT update. It counts the attempt before the
-- work begins, but not again for rows lost in company: all but one of them are innocent. The file
-- sources are asked after the rows are locked, in a statement of its own, so that they see every
-- reference committed before the claim. Time is the server's, read once.

create or replace function lapse.claim_files(
    p_worker     text,
    p_storages   text[],
    p_limits     integer[],
    p_lease      interval,
    p_after_dues timestamptz[],
    p_after_ids  bigint[]
)
    returns table (kind text, id bigint, token bigint, storage text, path text, attempt integer, due timestamptz,
                   expected jsonb, alone boolean, wait_seconds double precision)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now      timestamptz := clock_timestamp();
    v_setting  lapse.setting;
    v_pick     record;
    v_free     tid[];
    v_odd      bigint[];
    v_alone    boolean := false;
    v_short    boolean := false;
    v_picked   integer[] := array_fill(0, array[cardinality(p_storages)]);  -- by storage, like the next ones
    v_sizes    integer[] := v_picked;
    v_tokens   bigint[]  := v_picked;
    v_next_due timestamptz[];
    v_next_id  bigint[];
    v_ids      bigint[];    -- by file, like the next ones
    v_numbers  integer[];
    v_paths    text[];
    v_attempts integer[];
    v_dues     timestamptz[];
    v_guards   jsonb[];
    v_given    integer;
    v_needed   bigint[] := '{}';
begin
    select s.* into v_setting from lapse.setting as s;

    for v_n in 1 .. cardinality(p_storages) loop
        continue when p_limits[v_n] = 0;

        v_pick := lapse.pick_files(p_storages[v_n], p_limits[v_n], p_after_dues[v_n], p_after_ids[v_n], v_now, v_setting);
        v_odd := v_odd || v_pick.odd;
        v_alone := v_pick.lost is not null;

        if v_alone then
            v_free := lapse.lost_files(v_pick.lost, p_limits[v_n]);
            v_sizes := array_fill(0, array[cardinality(p_storages)]);
            v_sizes[v_n] := cardinality(v_free);
            v_tokens[v_n] := nextval('lapse.lease_token_seq');
            exit;
        end if;

        v_free := v_free || v_pick.free;
        v_picked[v_n] := v_pick.picked;
        v_next_due[v_n] := v_pick.next_due;
        v_next_id[v_n] := v_pick.next_id;
        v_short := v_short or v_pick.picked < p_limits[v_n];

        if v_pick.free is not null then
            v_sizes[v_n] := cardinality(v_pick.free);
            v_tokens[v_n] := nextval('lapse.lease_token_seq');
        end if;
    end loop;

    if v_odd is not null then
        perform lapse.end_files(v_odd);
    end if;

    if v_free is not null then
        with claimed as (
            update lapse.file_cleanup_queue as q
               set leased_at    = v_now,
                   leased_until = v_now + p_lease,
                   leased_by    = p_worker,
                   lease_token  = v_tokens[array_position(p_storages, q.storage)],
                   lease_size   = v_sizes[array_position(p_storages, q.storage)],
                   lost         = case when v_alone and q.lease_size <= 1 then q.lost + 1 else q.lost end,
                   attempts     = case when v_alone and coalesce(q.lease_size, 2) > 1 then greatest(q.attempts, 1)
                                       else greatest(q.attempts, 0) + 1 end,
                   again_at     = case when q.again_at > v_now then q.again_at end
             where q.ctid = any (v_free)
            returning q.id, array_position(p_storages, q.storage) as number, q.path, q.attempts, q.not_before, q.expected
        )
        select array_agg(c.id), array_agg(c.number), array_agg(c.path), array_agg(c.attempts), array_agg(c.not_before),
               array_agg(c.expected)
          into v_ids, v_numbers, v_paths, v_attempts, v_dues, v_guards
          from (select * from claimed as c order by c.number, c.not_before, c.id) as c;

        if exists (select from lapse.file_source) then
            v_needed := lapse.keep_files_in_use(
                v_ids, array(select p_storages[n.number] from unnest(v_numbers) with ordinality as n (number, position)
                              order by n.position), v_paths);
        end if;
    end if;

    return query
    select 'claimed', c.id, v_tokens[c.number], p_storages[c.number], c.path, c.attempts, greatest(c.due, 'epoch'),
           c.expected, v_alone, null::double precision
      from unnest(v_ids, v_numbers, v_paths, v_attempts, v_dues, v_guards) as c (id, number, path, attempts, due, expected)
     where c.id <> all (v_needed);

    if v_short and not v_alone then
        perform lapse.bury_unserved(p_storages, v_now);
    end if;

    for v_n in 1 .. cardinality(p_storages) loop
        continue when p_limits[v_n] = 0;

        if v_next_due[v_n] is not null and not v_alone then
            kind := 'next';
            storage := p_storages[v_n];
            due := v_next_due[v_n];
            id := v_next_id[v_n];
            wait_seconds := null;
            return next;
        end if;

        v_given := v_sizes[v_n];
        if v_needed <> '{}' then
            v_given := (select count(*) from unnest(v_ids, v_numbers) as c (id, number)
                         where c.number = v_n and c.id <> all (v_needed));
        end if;

        if v_given < p_limits[v_n] then
            kind := 'wait';
            storage := p_storages[v_n];
            due := null;
            id := null;
            wait_seconds := case when v_alone or v_picked[v_n] = p_limits[v_n] then 0
                                 else lapse.next_file_in(p_storages[v_n], v_now) end;
            return next;
        end if;
    end loop;
end;
$$;

comment on function lapse.claim_files(text, text[], integer[], interval, timestamptz[], bigint[]) is
    'Internal, second half of lapse.exchange_files: lease the next due files of each storage that nothing needs.';
