-- lapse.doctor_span: a time span as people say it, in its largest unit or two.
--
-- In: an interval, however long. Out: '45 s', '12 min', '3 h 20 min', '5 d 2 h';
-- 'for ever' for what is not finite; NULL for NULL. Only for reading.

create or replace function lapse.doctor_span(p_span interval)
    returns text
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
    select case
               when s.seconds is null      then 'for ever'
               when s.seconds < 60         then s.seconds || ' s'
               when s.seconds < 3600       then s.seconds / 60 || ' min'
               when s.seconds < 86400      then s.seconds / 3600 || ' h'
                                                || coalesce(' ' || nullif(s.seconds % 3600 / 60, 0) || ' min', '')
               else s.seconds / 86400 || ' d' || coalesce(' ' || nullif(s.seconds % 86400 / 3600, 0) || ' h', '')
           end
      from (select case when isfinite(p_span) and abs(extract(epoch from p_span)) < 1e11
                        then abs(extract(epoch from p_span))::bigint end as seconds) as s
     where p_span is not null
$$;

comment on function lapse.doctor_span(interval) is
    'A time span for people: 45 s, 12 min, 3 h 20 min, 5 d 2 h.';
