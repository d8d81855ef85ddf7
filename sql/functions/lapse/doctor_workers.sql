-- lapse.doctor_workers: are there workers, and are they alive?
--
-- In: the time. Out: findings for lapse.doctor. As lapse.worker_status judges: one that was not
-- seen for a minute, or two notify horizons, is not alive; one that says goodbye is off the list.

create or replace function lapse.doctor_workers(p_now timestamptz)
    returns table (level text, message text, command text)
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    with workers as materialized (
        select w.*, w.last_seen_at > p_now - greatest(interval '1 minute', 2 * s.notify_horizon) as alive
          from lapse.worker as w cross join lapse.setting as s
    ),
    counted as (
        select count(*) filter (where w.alive) as alive, max(w.last_seen_at) as last_seen from workers as w
    )
    select 'fail',
           'no worker is alive: no file is deleted'
           || coalesce('; the last was seen ' || lapse.doctor_span(p_now - greatest(c.last_seen, s.served)) || ' ago', ''),
           'pglapse worker'
      from counted as c, (select max(s.last_served_at) as served from lapse.storage as s) as s
     where c.alive = 0
       and (s.served is not null or exists (select from lapse.file_cleanup_queue))
    union all
    select 'warn',
           format('worker %s went away without a word; it was last seen %s ago', w.id, lapse.doctor_span(p_now - w.last_seen_at)),
           format('select lapse.worker_bye(%L); -- if it is gone; it is forgotten by itself after a day', w.id)
      from workers as w
     where not w.alive
    union all
    select 'warn',
           format('workers of different versions are at work: %s', string_agg(distinct w.version, ', ')),
           'pip install --upgrade pglapse  # where the older ones run, and restart them'
      from workers as w
     where w.alive
    having count(distinct w.version) > 1
    union all
    select 'ok',
           case c.alive when 0 then 'no worker has been here, and no file waits'
                        when 1 then '1 worker is alive' else c.alive || ' workers are alive' end,
           null
      from counted as c
$$;

comment on function lapse.doctor_workers(timestamptz) is
    'Check of lapse.doctor: workers that are alive, and those that went away without a word.';
