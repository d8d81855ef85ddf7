-- lapse.due_shift: how much later a row is due than its due column says.
--
-- In: a run's cutoff, the age that a row must have (NULL: none), and the zone of a due column without one
-- (NULL: it has one). Out: an interval of days and less. Column + shift is a row's due time in this run, and
-- a row is due when its column is at or before cutoff - shift, both taken in UTC as timestamps without
-- zone: days have 24 hours there, so nothing hangs on the session's zone, and the difference of two
-- columns is the difference of their due times. Taken once for a cutoff, not for each row, since adding months,
-- or a zone's offset, to each would put rows out of order: what the index gives oldest first would
-- not be due oldest first, and a batch could not go on where the last one ended.
--
-- Never early: days and less are taken off before the months, as they are added after them, and where
-- a month is too short the remainder is clamped downwards, so column + age <= cutoff for every row that is due.
-- Within a day of a clock change in the zone the smaller offset counts, before it and after it: a
-- time that the clock showed twice is over only when it is over the second time, and one that it never
-- showed reads as the server reads it, an hour later. Rows may so go late, by an hour at most, or by up to three days at
-- the end of a month; the next run finds them.

create or replace function lapse.due_shift(
    p_cutoff     timestamptz,
    p_older_than interval,
    p_zone       text default null
)
    returns interval
    language sql
    immutable
    parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select case
               when not isfinite(p_cutoff) then interval '0'
               when p_zone is null         then timezone('UTC', p_cutoff) - o.old
               else timezone('UTC', p_cutoff) - least(
                   timezone(p_zone, timezone('UTC', o.old)),
                   timezone(p_zone, timezone('UTC', o.old - interval '1 day')) + interval '1 day',
                   timezone(p_zone, timezone('UTC', o.old + interval '1 day')) - interval '1 day')
           end
      from (select extract(year from coalesce(p_older_than, interval '0')) * 12
                   + extract(month from coalesce(p_older_than, interval '0')) as months) as m
     cross join lateral (
           select timezone('UTC', p_cutoff)
                  - (coalesce(p_older_than, interval '0') - make_interval(months => m.months::integer))
                  - make_interval(months => m.months::integer) as old) as o
$$;

comment on function lapse.due_shift(timestamptz, interval, text) is
    'What to add, in UTC, to a due column to have the due time in a run with this cutoff: the age, and what a zone makes of it.';
