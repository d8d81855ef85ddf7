-- lapse.disown_database: this database is a copy; nothing runs in it until lapse.adopt_database.
--
-- Out: one sentence. For physical copies, which keep name and system identifier and so can't be told from the
-- original: call it before a worker or pg_cron begins there, that is with the worker off and cron.launch_active_jobs
-- off (or pg_cron not preloaded). Disowning twice keeps the first time. What is under way goes on to the end
-- of its batch, and a worker deletes what it holds. For the engine's owner.

create or replace function lapse.disown_database()
    returns text
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
begin
    update lapse.identity as i
       set disowned_at = clock_timestamp(), disowned_by = current_user
     where i.disowned_at is null;

    return lapse.halt_reason();
end;
$$;

comment on function lapse.disown_database() is
    'For copies that can''t be told from their original: nothing runs here until lapse.adopt_database.';
