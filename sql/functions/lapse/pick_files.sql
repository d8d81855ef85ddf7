-- lapse.pick_files: lock the rows of one storage that a claim takes.
--
-- In: the storage, how many, the resume point (NULL: from the start), the time of the claim. Out: as of
-- lapse.lock_due_files, for all slices together, and where to go on: NULL when there is nothing
-- more, or when the position is one that a worker's language may not know.
--
-- Nine tenths are the oldest rows. Where they leave no room, the last tenth begins at a random time
-- later than theirs: at some distance from them or from now, 1 ms to all there is, each order of
-- magnitude as likely as another. So a single file behind a million others gets its turn within seconds,
-- whether it came a second or an hour after them. What is too few from there on comes from the front
-- again. Nothing of it moves the resume point. A claim that comes back short behind a resume point is
-- filled up from the start, so short means that there is no more. It ends early when it meets a
-- lost row: then only such rows will be taken.

create or replace function lapse.pick_files(
    p_storage   text,
    p_limit     integer,
    p_after_due timestamptz,
    p_after_id  bigint,
    p_now       timestamptz,
    p_setting   lapse.setting,
    out picked   integer,
    out free     tid[],
    out lost     tid[],
    out odd      bigint[],
    out next_due timestamptz,
    out next_id  bigint
)
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    c_least constant bigint := -9223372036854775808;
    c_most  constant bigint := 9223372036854775807;
    v_spare integer := case when p_limit > 1 then greatest(p_limit / 10, 1) else 0 end;
    v_after timestamptz := coalesce(p_after_due, '-infinity');
    v_first bigint := case when p_after_due is null then c_least else coalesce(p_after_id, c_least) end;
    v_from  timestamptz;       -- the random time
    v_span  double precision;  -- milliseconds from the front to now
    v_slice record;
begin
    v_slice := lapse.lock_due_files(p_storage, p_now, v_after, v_first, p_now, c_most, p_limit - v_spare, p_setting);
    picked := v_slice.picked;
    free := v_slice.free;
    odd := v_slice.odd;
    lost := v_slice.lost;

    if lost is null and picked = p_limit - v_spare then
        next_due := v_slice.last_due;
        next_id := v_slice.last_id;

        if v_spare > 0 then
            v_span := greatest(extract(epoch from p_now - greatest(next_due, 'epoch')) * 1000, 1);
            v_from := case when random() < 0.5 then p_now - interval '1 ms' * power(v_span, random())
                           else least(greatest(next_due, 'epoch') + interval '1 ms' * power(v_span, random()), p_now) end;

            v_slice := lapse.lock_due_files(p_storage, p_now, greatest(v_from, next_due),
                                        case when v_from > next_due then c_least else next_id end,
                                        p_now, c_most, v_spare, p_setting);
            picked := picked + v_slice.picked;
            free := free || v_slice.free;
            odd := odd || v_slice.odd;
            lost := v_slice.lost;
        end if;

        if lost is null and picked < p_limit and v_from > next_due then
            v_slice := lapse.lock_due_files(p_storage, p_now, next_due, next_id, v_from, c_least, p_limit - picked,
                                        p_setting);
            picked := picked + v_slice.picked;
            free := free || v_slice.free;
            odd := odd || v_slice.odd;
            lost := v_slice.lost;
            next_due := coalesce(v_slice.last_due, next_due);
            next_id := coalesce(v_slice.last_id, next_id);
        end if;
    end if;

    if lost is null and picked < p_limit and p_after_due is not null then
        v_slice := lapse.lock_due_files(p_storage, p_now, '-infinity', c_least, v_after, v_first, p_limit - picked,
                                    p_setting);
        picked := picked + v_slice.picked;
        free := free || v_slice.free;
        odd := odd || v_slice.odd;
        lost := v_slice.lost;
        next_due := v_slice.last_due;
        next_id := v_slice.last_id;
    end if;

    if picked < p_limit or next_due < 'epoch' then
        next_due := null;
        next_id := null;
    end if;
end;
$$;

comment on function lapse.pick_files(text, integer, timestamptz, bigint, timestamptz, lapse.setting) is
    'Internal: lock the rows of one storage that a claim takes: most from the front, some from a random time on.';
