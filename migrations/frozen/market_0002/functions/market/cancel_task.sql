-- market.cancel_task: a task will not be done.
--
-- In: the task, why, and the time. Its files go at once, by trigger. Raises
-- LP101 unknown, LP107 completed or cancelled already, LP108 NULL given (only
-- the reason may be NULL).

create or replace function market.cancel_task(
    p_task_id bigint,
    p_reason  text        default null,
    p_now     timestamptz default now()
)
    returns void
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_status text;
begin
    if num_nulls(p_task_id, p_now) > 0 then
        raise exception 'cancel_task was given NULL'
            using errcode = 'LP108', hint = 'Give a task and a time; only the reason may be NULL.';
    end if;

    select t.status into v_status from market.tasks as t where t.id = p_task_id for no key update;
    if not found then
        raise exception 'task % is unknown', p_task_id
            using errcode = 'LP101', hint = 'Look in market.tasks.';
    elsif v_status in ('completed', 'cancelled') then
        raise exception 'task % is % already', p_task_id, v_status
            using errcode = 'LP107', hint = 'market.reopen_task makes it live again.';
    end if;

    update market.tasks as t
       set status = 'cancelled', cancelled_at = p_now, cancel_reason = p_reason
     where t.id = p_task_id;
end;
$$;

comment on function market.cancel_task(bigint, text, timestamptz) is
    'Cancel a live task; its files go at once. LP101 unknown, LP107 finished already.';
