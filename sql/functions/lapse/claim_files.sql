-- lapse.claim_files: the second half of lapse.exchange_files: the next files to delete.
--
-- In: the worker; side by side the storages, how many files of each, and their resume points (NULL:
-- from the start); for how long. Out: for each storage that has any, its files side by side, in due order
-- ('claimed'; expecteds is NULL where no file has any); for each that has more, where to go on ('next'); for
-- each that came back short, how long to wait ('wait'). A due time before 1970 is given as 1970: a worker's
-- language may know no -infinity.
--
-- The files are arrays: a row that passes from function to function is copied each time and written out
-- column by column, which cost a file more than the update that leases it.
--
-- Each storage is claimed by itself, so that none waits for another's rows. Rows whose worker
-- never reported back stand at the front of due order, where a claim looks first. A claim that meets one
-- becomes a claim of such rows alone (lapse.lost_files), and takes nothing else of any storage.
--
-- A claim writes no indexed column, so it is a HOT update. It counts the attempt before the
-- work begins, but not again for rows lost in company: all but one of them are innocent. The file
-- sources are asked after the rows are locked, in a statement of its own, so that they see every
-- reference, and each hold, committed before the claim. Time is the server's, read once.

create or replace function lapse.claim_files(
    p_worker     text,
    p_storages   text[],
    p_limits     integer[],
    p_lease      interval,
    p_after_dues timestamptz[],
    p_after_ids  bigint[]
)
    returns table (kind text, token bigint, storage text, ids bigint[], paths text[], attempts integer[],
                   dues timestamptz[], expecteds jsonb[], alone boolean, id bigint, due timestamptz,
                   wait_seconds double precision)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_now      timestamptz := clock_timestamp();
    v_setting  lapse.setting;
    v_pick     record;
    v_free     tid[];  -- of one storage after the other
    v_before   integer := 0;
    v_odd      bigint[];
    v_alone    boolean := false;
    v_short    boolean := false;
    v_picked   integer[] := array_fill(0, array[cardinality(p_storages)]);  -- by storage, like the next ones
    v_sizes    integer[] := v_picked;
    v_tokens   bigint[]  := v_picked;
    v_next_due timestamptz[];
    v_next_id  bigint[];
    v_needed   tid[];
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

    if v_free is not null and (exists (select from lapse.file_source) or exists (select from lapse.hold)) then
        v_needed := lapse.keep_files_in_use(p_worker, v_free);

        if v_needed <> '{}' then
            v_free := array(select f.place from unnest(v_free) as f (place) where f.place <> all (v_needed));
            v_sizes := array(select (select count(*) from lapse.file_cleanup_queue as q
                                      where q.ctid = any (v_free) and q.storage = s.name)::integer
                               from unnest(p_storages) with ordinality as s (name, position)
                              order by s.position);
        end if;
    end if;

    kind := 'claimed';

    for v_n in 1 .. cardinality(p_storages) loop
        continue when v_sizes[v_n] = 0;

        with claimed as (
            update lapse.file_cleanup_queue as q
               set leased_at    = v_now,
                   leased_until = v_now + p_lease,
                   leased_by    = p_worker,
                   lease_token  = v_tokens[v_n],
                   -- One beside which a worker may hold others is one of two at least.
                   lease_size   = greatest(v_sizes[v_n], case when v_alone then 1 else 2 end),
                   lost         = case when v_alone and q.lease_size <= 1 then q.lost + 1 else q.lost end,
                   attempts     = case when v_alone and coalesce(q.lease_size, 2) > 1 then greatest(q.attempts, 1)
                                       else greatest(q.attempts, 0) + 1 end,
                   again_at     = case when q.again_at > v_now then q.again_at end,
                   expected     = case when q.again_at <= v_now
                                       then lapse.united_guard(array[q.expected, q.again_expected])
                                       else q.expected end
             where q.ctid = any (v_free[v_before + 1 : v_before + v_sizes[v_n]])
            returning q.id, q.path, q.attempts, q.not_before, q.expected
        )
        select array_agg(c.id), array_agg(c.path), array_agg(c.attempts), array_agg(greatest(c.not_before, 'epoch')),
               case when count(c.expected) > 0 then array_agg(c.expected) end
          into ids, paths, attempts, dues, expecteds
          from (select c.* from claimed as c order by c.not_before, c.id) as c;

        v_before := v_before + v_sizes[v_n];
        token := v_tokens[v_n];
        storage := p_storages[v_n];
        alone := v_alone;
        return next;
    end loop;

    ids := null;
    paths := null;
    attempts := null;
    dues := null;
    expecteds := null;
    token := null;
    alone := null;

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

        if v_sizes[v_n] < p_limits[v_n] then
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
