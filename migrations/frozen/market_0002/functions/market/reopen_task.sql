-- market.reopen_task: a finished task is live again, and so are its files.
--
-- In: the task, a new deadline (NULL: as it was), and the time. A task that
-- somebody had taken is taken again, any other is open. Trigger
-- queue_files_of_tasks takes its pending files out of the queue; a WARNING
-- counts those that a worker already holds. Raises LP101 unknown, LP107 not
-- finished, LP102 when it would be open with its deadline passed, LP108 NULL given.

create or replace function market.reopen_task(
    p_task_id  bigint,
    p_deadline timestamptz default null,
    p_now      timestamptz default now()
)
    returns void
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_task market.tasks;
begin
    if num_nulls(p_task_id, p_now) > 0 then
        raise exception 'reopen_task was given NULL'
            using errcode = 'LP108', hint = 'Give a task and a time; only the deadline may be NULL.';
    end if;

    select t.* into v_task from market.tasks as t where t.id = p_task_id for no key update;
    if not found then
        raise exception 'task % is unknown', p_task_id
            using errcode = 'LP101', hint = 'Look in market.tasks.';
    elsif v_task.status in ('open', 'taken') then
        raise exception 'task % is % and can''t be reopened', p_task_id, v_task.status
            using errcode = 'LP107', hint = 'Only a completed or cancelled task can.';
    elsif v_task.taker_id is null and coalesce(p_deadline, v_task.deadline) <= p_now then
        raise exception 'task % would lapse at once', p_task_id
            using errcode = 'LP102',
                  hint = format('Its deadline %s has passed: give a later one as p_deadline.',
                                coalesce(p_deadline, v_task.deadline));
    end if;

    update market.tasks as t
       set status = case when t.taker_id is null then 'open' else 'taken' end,
           deadline = coalesce(p_deadline, t.deadline)
     where t.id = p_task_id;
end;
$$;

comment on function market.reopen_task(bigint, timestamptz, timestamptz) is
    'Make a finished task live again; its pending files leave the queue. LP101 unknown, LP102 deadline passed, LP107 not finished.';
