-- market.complete_task: a task is done.
--
-- In: the task and the time. Its files go 72 hours later, by trigger. Raises
-- LP101 unknown, LP107 completed or cancelled already, LP102 open and past its
-- deadline (whether or not the sweep has been), LP108 NULL given.

create or replace function market.complete_task(
    p_task_id bigint,
    p_now     timestamptz default now()
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
        raise exception 'complete_task was given NULL'
            using errcode = 'LP108', hint = 'Give a task and a time.';
    end if;

    select t.* into v_task from market.tasks as t where t.id = p_task_id for no key update;
    if not found then
        raise exception 'task % is unknown', p_task_id
            using errcode = 'LP101', hint = 'Look in market.tasks.';
    elsif v_task.status in ('completed', 'cancelled') then
        raise exception 'task % is % already', p_task_id, v_task.status
            using errcode = 'LP107', hint = 'market.reopen_task makes it live again.';
    elsif v_task.status = 'open' and v_task.deadline <= p_now then
        raise exception 'task % has lapsed', p_task_id
            using errcode = 'LP102', hint = format('Its deadline was %s and nobody had taken it.', v_task.deadline);
    end if;

    update market.tasks as t
       set status = 'completed', completed_at = p_now
     where t.id = p_task_id;
end;
$$;

comment on function market.complete_task(bigint, timestamptz) is
    'Complete a live task; its files go 72 hours later. LP101 unknown, LP102 open past its deadline, LP107 finished already.';
