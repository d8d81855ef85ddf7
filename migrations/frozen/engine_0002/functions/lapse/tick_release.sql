-- lapse.tick_release: stop being the one worker that ticks.
--
-- In: the worker's name. Out: true when it was its turn; false, and nothing happens,
-- when it was not. Called when pg_cron is alive again and when the worker stops.

create or replace function lapse.tick_release(p_worker text)
    returns boolean
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    delete from lapse.tick_turn as t where t.worker = p_worker;
    return found;
end;
$$;

comment on function lapse.tick_release(text) is
    'For workers: give back the turn of the one that ticks; true when it was this worker''s.';
