-- lapse.touch_storages: these storages are being served.
--
-- In: their names. Writes at most once a minute for each, however many workers serve it, and passes
-- over rows that another worker is writing just now: it says the same.

create or replace function lapse.touch_storages(p_storages text[])
    returns void
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    with stale as materialized (
        select s.name
          from lapse.storage as s
         where s.name = any (p_storages)
           and s.last_served_at <= clock_timestamp() - interval '1 minute'
           for update skip locked
    )
    update lapse.storage as s
       set last_served_at = clock_timestamp()
      from stale as o
     where s.name = o.name
$$;

comment on function lapse.touch_storages(text[]) is
    'Internal: note that storages are being served, to the minute.';
