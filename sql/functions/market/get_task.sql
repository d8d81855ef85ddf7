-- market.get_task: read a task, as it is by now.
--
-- In: the task and the time. Out: its row. An open task whose deadline has passed
-- reads as cancelled, whether or not the sweep has been. Raises LP101 unknown,
-- LP108 NULL given.
--
-- If the time of its files has come and one of them is neither removed nor queued,
-- market.queue_forgotten_files queues it on the way. That never fails the read,
-- whatever goes wrong there: no right, a lock, a timeout, a table that is gone.
-- What is missed, the next reader or policy requeue_task_files finds.

create or replace function market.get_task(
    p_task_id bigint,
    p_now     timestamptz default now()
)
    returns market.tasks
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_task market.tasks;
begin
    if num_nulls(p_task_id, p_now) > 0 then
        raise exception 'get_task was given NULL'
            using errcode = 'LP108', hint = 'Give a task and a time.';
    end if;

    select t.* into v_task from market.tasks as t where t.id = p_task_id;
    if not found then
        raise exception 'task % is unknown', p_task_id
            using errcode = 'LP101', hint = 'Look in market.tasks.';
    end if;

    if v_task.files_go_at <= p_now then
        begin
            perform market.queue_forgotten_files(p_task_id, v_task.files_go_at, p_now);
        exception
            when query_canceled or assert_failure or others then
                null;
        end;
    end if;

    if v_task.status = 'open' and v_task.deadline <= p_now then
        v_task.status := 'cancelled';
        v_task.cancelled_at := v_task.deadline;
        v_task.cancel_reason := 'deadline';
        v_task.files_go_at := v_task.deadline;
    end if;

    return v_task;
end;
$$;

comment on function market.get_task(bigint, timestamptz) is
    'Read a task: cancelled if its deadline has passed. Queues files that should have gone and are not queued. LP101 unknown.';
