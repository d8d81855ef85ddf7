-- market.requeue_task_files: one batch of policy requeue_task_files; files of finished tasks that nothing queued are queued.
--
-- In: how many files at most, the time by which they may go, and a resume point
-- that it has no need of. Out: files queued, as picked and as handled, so that
-- this is what the history of runs says. Raises nothing of its own. Such files are
-- left by what triggers don't see: a restored dump, a time when they were disabled,
-- a TRUNCATE of the queue. A file that is queued, dead ones included, is left as it
-- is, and so is one that another row needs: it is queued when that one ends.
--
-- Finished tasks are looked through in the order of tasks_finished, in windows of
-- a thousand. A call looks once round, for 10 seconds at most, or half of what
-- statement_timeout leaves, and notes how far it has come: the next one goes on
-- from there, in the same run if p_limit files were found, else in the next. What was found is queued
-- at the end, and looked at again under the lock of its task: one that is just
-- being reopened is skipped, its own trigger deals with it. No other lock is
-- held while looking.

create or replace function market.requeue_task_files(
    p_limit  integer,
    p_cutoff timestamptz,
    p_after  timestamptz
)
    returns lapse.progress
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    c_first    constant bigint := -9223372036854775808;
    v_until    timestamptz     := clock_timestamp() + least(interval '10 s', lapse.statement_time_left() / 2);
    v_wrapped  boolean         := false;
    v_start_at timestamptz;
    v_start_id bigint;
    v_at       timestamptz;
    v_id       bigint;
    v_end_at   timestamptz;
    v_end_id   bigint;
    v_ids      bigint[];
    v_storages text[];
    v_paths    text[];
    v_lost     bigint[]        := '{}';
    v_files    lapse.file_request[];
begin
    if not pg_try_advisory_xact_lock(1835102827, hashtext('requeue_task_files')) then
        return (0, 0, null)::lapse.progress;
    end if;
    insert into market.backstop_positions (policy) values ('requeue_task_files') on conflict do nothing;
    select p.after_at, p.after_id
      into v_start_at, v_start_id
      from market.backstop_positions as p
     where p.policy = 'requeue_task_files';
    v_at := v_start_at;
    v_id := v_start_id;

    loop
        with looked_at as materialized (
            select t.files_go_at, t.id
              from market.tasks as t
             where t.files_go_at is not null
               and t.files_go_at <= p_cutoff
               and (t.files_go_at, t.id) > (v_at, v_id)
             order by t.files_go_at, t.id
             limit 1000
        ),
        lost as (
            select f.id, f.storage, f.path
              from looked_at as l
             cross join lateral (select f.id, f.storage, f.path
                                   from market.task_files as f
                                  where f.task_id = l.id
                                    and f.removed_at is null
                                 offset 0) as f
             where not exists (select from lapse.file_cleanup_queue as q
                                where q.storage = f.storage
                                  and lapse.path_digest(q.path) = lapse.path_digest(f.path))
        )
        select l.ids, l.storages, l.paths, e.files_go_at, e.id
          into v_ids, v_storages, v_paths, v_end_at, v_end_id
          from (select l.files_go_at, l.id from looked_at as l order by l.files_go_at desc, l.id desc limit 1) as e
         cross join (select array_agg(l.id) as ids, array_agg(l.storage) as storages, array_agg(l.path) as paths
                       from lost as l) as l;

        if not found then
            v_at := '-infinity';
            v_id := c_first;
            exit when v_wrapped or (v_start_at, v_start_id) = (v_at, v_id) or clock_timestamp() >= v_until;
            v_wrapped := true;
            continue;
        end if;
        if v_ids is not null then
            v_lost := v_lost || array(select l.id
                                        from unnest(v_ids, v_storages, v_paths) as l (id, storage, path)
                                        left join market.files_in_use(v_storages, v_paths) as u
                                          on u.storage = l.storage and u.path = l.path
                                         and (u.until is null or u.until > p_cutoff)
                                       where u.path is null
                                       limit p_limit - cardinality(v_lost));
        end if;
        exit when cardinality(v_lost) >= p_limit;  -- this window may have more: it comes again
        v_at := v_end_at;
        v_id := v_end_id;
        exit when clock_timestamp() >= v_until or v_wrapped and (v_at, v_id) >= (v_start_at, v_start_id);
    end loop;

    with locked as materialized (
        select f.id, f.storage, f.path, t.files_go_at
          from (select distinct f.task_id, f.id  -- the last window may reach into the first
                  from unnest(v_lost) as l (id)
                  join market.task_files as f on f.id = l.id
                 order by f.task_id, f.id
                offset 0) as l
         cross join lateral (select t.files_go_at
                               from market.tasks as t
                              where t.id = l.task_id
                                and t.files_go_at <= p_cutoff
                             offset 0
                                for no key update skip locked) as t
         cross join lateral (select f.id, f.storage, f.path
                               from market.task_files as f
                              where f.id = l.id
                                and f.task_id = l.task_id
                                and f.removed_at is null
                             offset 0) as f
    )
    select array_agg((l.storage, l.path, l.files_go_at, 'backstop', 'market.task_files', l.id::text, null)::lapse.file_request)
      into v_files
      from locked as l;
    if v_files is not null then
        perform lapse.enqueue_files(v_files);
    end if;

    update market.backstop_positions as p
       set after_at = v_at, after_id = v_id
     where p.policy = 'requeue_task_files';

    return (coalesce(cardinality(v_files), 0), coalesce(cardinality(v_files), 0), p_cutoff)::lapse.progress;
end;
$$;

comment on function market.requeue_task_files(integer, timestamptz, timestamptz) is
    'Step of policy requeue_task_files: queue at most p_limit files of finished tasks that are neither queued nor removed.';
