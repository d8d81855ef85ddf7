-- lapse.next_slot: the first slot of a policy's time grid after a given time.
--
-- In: the cadence, for whole days perhaps a time of day and its zone, any time
-- on the grid, and the time to start from. Out: the first slot strictly after it.
-- Without a time of day the grid is arithmetic: exact multiples of the cadence,
-- a day being 24 hours, so daylight saving never moves it. With one it follows
-- the zone's calendar: every so many dates, once each. A local time that a clock
-- change skips falls due an hour later by the new clock, one that comes twice
-- falls due the second time. Dates whose local time never was share a slot with
-- the next one, so the grid never runs backwards and the loop below finds the least.
-- A slot may fall on the day after its date: a skipped time late in the evening
-- (America/Nuuk), or 24:00. An anchor that is such a slot stands for its own date.

create or replace function lapse.next_slot(
    p_every     interval,
    p_at_time   time,
    p_time_zone text,
    p_anchor    timestamptz,
    p_after     timestamptz
)
    returns timestamptz
    language plpgsql
    stable
    set search_path = pg_catalog, pg_temp
    set timezone = 'UTC'
as $$
declare
    v_seconds bigint;
    v_days    integer;
    v_first   date;
    v_date    date;
    v_slot    timestamptz;
begin
    if p_at_time is null then
        v_seconds := extract(epoch from p_every)::bigint;
        return p_anchor + make_interval(secs =>
            (floor(extract(epoch from p_after - p_anchor) / v_seconds) + 1) * v_seconds);
    end if;

    v_days := extract(epoch from p_every)::bigint / 86400;
    v_first := (p_anchor at time zone p_time_zone)::date;
    if (v_first - 1 + p_at_time) at time zone p_time_zone = p_anchor then
        v_first := v_first - 1;
    end if;
    -- A date of the grid at least one day before p_after in any calendar.
    v_date := v_first
        + (floor(((p_after at time zone p_time_zone)::date - 2 - v_first)::numeric / v_days) * v_days)::integer;
    loop
        v_slot := (v_date + p_at_time) at time zone p_time_zone;
        exit when v_slot > p_after;
        v_date := v_date + v_days;
    end loop;
    return v_slot;
end;
$$;

comment on function lapse.next_slot(interval, time, text, timestamptz, timestamptz) is
    'The first slot strictly after p_after, on the grid through p_anchor; whole days follow the local calendar when a time of day is given.';
