-- lapse.worker_bye: a worker has stopped. In: its name; an unknown one does no harm.
--
-- Its leases are not touched: it hands in or gives back what it holds before it says goodbye.
-- Should it keep the schedule, another one may at once.

create or replace function lapse.worker_bye(p_worker text)
    returns void
    language sql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
as $$
    delete from lapse.tick_turn as t where t.worker = p_worker;
    delete from lapse.worker as w where w.id = p_worker;
$$;

comment on function lapse.worker_bye(text) is
    'For workers: say goodbye.';
