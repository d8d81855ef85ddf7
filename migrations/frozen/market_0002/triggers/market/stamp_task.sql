-- stamp_task: a task's times always match its state.
--
-- Fires before every INSERT and UPDATE of a task. A completed or cancelled task
-- without its time gets now(); times of other states are cleared, and a live
-- task has none: with a stale completed_at a task that is completed again would
-- lose its files at once. files_go_at holds the file rule, once, for the
-- triggers and for market.files_in_use: 72 hours (no days: those change length
-- with daylight saving) after completion, at once when cancelled, NULL while live.
-- Should another trigger change a task after this one, constraint
-- tasks_times_fit_status refuses what doesn't fit: its files would never go.

create or replace function market.stamp_task()
    returns trigger
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if new.status = 'completed' then
        new.completed_at := coalesce(new.completed_at, now());
        new.cancelled_at := null;
        new.cancel_reason := null;
        new.files_go_at := new.completed_at + interval '72 hours';
    elsif new.status = 'cancelled' then
        new.completed_at := null;
        new.cancelled_at := coalesce(new.cancelled_at, now());
        new.files_go_at := now();
        if tg_op = 'UPDATE' and old.status = 'cancelled' then
            new.files_go_at := old.files_go_at;
        end if;
    else
        new.completed_at := null;
        new.cancelled_at := null;
        new.cancel_reason := null;
        new.files_go_at := null;
    end if;

    return new;
end;
$$;

comment on function market.stamp_task() is
    'Trigger: fill and clear completed_at, cancelled_at, cancel_reason and files_go_at by a task''s state.';

create or replace trigger stamp_task
    before insert or update on market.tasks
    for each row
    execute function market.stamp_task();

comment on trigger stamp_task on market.tasks is 'Times match the state.';
