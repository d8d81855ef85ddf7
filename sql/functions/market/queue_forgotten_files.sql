-- market.queue_forgotten_files: the half of market.get_task that may fail.
--
-- In: a finished task, from when on its files may go, and the time. Queues those
-- that are neither removed nor queued, nor needed by another row: such a file would
-- be taken out of the queue again, and queued by the next reader. Out: nothing.
-- Raises whatever goes wrong: 55P03 after 50 ms of waiting for locks, of which each
-- file gets what the others left. What was queued stays locked until the reader's
-- transaction ends, as after any other write.
--
-- It does nothing in a read-only transaction (a standby has no others); in a
-- serializable one, which a write could make fail at its end, where no handler
-- can catch it; and where a trigger on the queue is deferred, for the same reason.
-- Of several who read the same task at once one does it, and the others don't
-- wait. The task is not locked, so that a long transaction that reads it holds up
-- nobody who changes it; should it be reopened at this moment, the check before
-- each deletion keeps its files.

create or replace function market.queue_forgotten_files(p_task_id bigint, p_go_at timestamptz, p_now timestamptz)
    returns void
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
    set lock_timeout = '50ms'
as $$
declare
    v_until timestamptz := clock_timestamp() + interval '50 ms';
    v_left  integer;
    v_file  record;
begin
    if current_setting('transaction_read_only')::boolean
       or current_setting('transaction_isolation') = 'serializable'
       or exists (select from pg_trigger as t
                   where t.tgrelid = 'lapse.file_cleanup_queue'::regclass and t.tgdeferrable) then
        return;
    end if;

    for v_file in
        select f.id, f.storage, f.path
          from market.task_files as f
         where f.task_id = p_task_id
           and f.removed_at is null
           and not exists (select from lapse.file_cleanup_queue as q
                            where q.storage = f.storage
                              and lapse.path_digest(q.path) = lapse.path_digest(f.path))
         order by f.storage, lapse.path_digest(f.path)
    loop
        v_left := ceil(1000 * extract(epoch from v_until - clock_timestamp()));
        exit when v_left <= 0
               or not pg_try_advisory_xact_lock(hashtextextended('market.queue_forgotten_files', p_task_id));
        continue when exists (select
                                from market.files_in_use(array[v_file.storage], array[v_file.path]) as u
                               where u.until is null or u.until > p_now);
        perform set_config('lock_timeout', v_left::text, true);
        perform lapse.enqueue_file(v_file.storage, v_file.path, p_go_at, 'lazy check',
                                   'market.task_files', v_file.id::text);
    end loop;
end;
$$;

comment on function market.queue_forgotten_files(bigint, timestamptz, timestamptz) is
    'Internal: queue the files of a finished task that are neither queued nor removed; waits 50 ms at most.';
