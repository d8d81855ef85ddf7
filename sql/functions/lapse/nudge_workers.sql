-- lapse.nudge_workers: tell workers at commit that a file is due, if it is due soon enough to matter.
--
-- In: from when on it may go. Out: nothing. Called by the triggers of lapse.attach_files, whose owner can't read
-- lapse.setting. The horizon is an hour at most: what is due later needs no look at it.

create or replace function lapse.nudge_workers(p_due timestamptz)
    returns void
    language plpgsql
    volatile
    security definer  -- the owner of a table has no right on the engine's settings
    set search_path = pg_catalog, pg_temp
as $$
begin
    if p_due <= clock_timestamp() + interval '1 hour'
       and p_due <= clock_timestamp() + (select s.notify_horizon from lapse.setting as s) then
        perform pg_notify('file_cleanup_queue', '');
    end if;
end;
$$;

comment on function lapse.nudge_workers(timestamptz) is
    'Internal: wake workers at commit if a file is due within the horizon.';
