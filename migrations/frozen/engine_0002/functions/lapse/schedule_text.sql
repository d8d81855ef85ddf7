-- lapse.schedule_text: a policy's cadence as people say it.
--
-- In: the cadence, perhaps a time of day and its zone. Out: 'every 30 seconds',
-- 'every 5 minutes', 'daily at 03:00 UTC', 'every 7 days at 02:00 Europe/Berlin';
-- NULL for NULL. Only for reading: nothing parses it.

create or replace function lapse.schedule_text(p_every interval, p_at_time time, p_time_zone text)
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select case
               when p_at_time is null and u.n = 1 then 'every ' || u.unit
               when p_at_time is null             then 'every ' || u.n || ' ' || u.unit || 's'
               else case when u.n = 1 then 'daily' else 'every ' || u.n || ' days' end
                    || ' at ' || to_char(p_at_time, case when extract(second from p_at_time) = 0
                                                         then 'HH24:MI' else 'HH24:MI:SS' end)
                    || ' ' || p_time_zone
           end
      from (select s.seconds / l.length as n, l.unit
              from (select extract(epoch from p_every)::bigint as seconds) as s,
                   (values (86400, 'day'), (3600, 'hour'), (60, 'minute'), (1, 'second')) as l (length, unit)
             where s.seconds % l.length = 0
             order by l.length desc
             limit 1) as u
$$;

comment on function lapse.schedule_text(interval, time, text) is
    'A cadence in words: every 5 minutes; daily at 03:00 UTC.';
