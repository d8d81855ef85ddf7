-- lapse.begin_tick: the beginning of lapse.run_due.
--
-- In: who calls, whether to stay for the minute, and the time allowed. Out: the
-- time after which no batch begins. Notes the caller in lapse.tick_source, so that
-- a silent scheduler is noticed. A call that stays ends by second 55: pg_cron 1.4
-- knows only minutes, and the next one must find its slot free. In a database that is not adopted the time is
-- over at once: the source of ticks is seen to live, and nothing runs. Raises LP001 for a
-- source other than pg_cron, worker or manual, and for a time not between 1 s and 1 hour.

create or replace function lapse.begin_tick(
    p_source text,
    p_stay   boolean,
    p_budget interval
)
    returns timestamptz
    language plpgsql
    volatile
    security definer  -- whoever may tick needs no right on the tables
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_began timestamptz := statement_timestamp();
begin
    if p_source is null or p_source not in ('pg_cron', 'worker', 'manual') then
        raise exception using
            errcode = 'LP001',
            message = format('"%s" is not a source of ticks', coalesce(p_source, 'NULL')),
            hint    = 'Use pg_cron, worker or manual.';
    end if;
    if p_budget is null or not isfinite(p_budget)
       or p_budget not between interval '1 s' and interval '1 hour' then
        raise exception using
            errcode = 'LP001',
            message = format('a tick can''t last %s', coalesce(p_budget::text, 'NULL')),
            hint    = 'Use 1 second to 1 hour.';
    end if;

    perform lapse.leave_runs('lost');

    insert into lapse.tick_source as t (source, last_tick_at)
    values (p_source, clock_timestamp())
        on conflict (source) do update
       set last_tick_at = excluded.last_tick_at,
           ticks        = t.ticks + 1;

    if lapse.halt_reason() is not null then
        return '-infinity';
    end if;

    -- Half a second for the last batch; one that begins after second 51 of a minute has no minute to stay for.
    return case when p_stay
                then greatest(date_trunc('minute', v_began) + interval '54.5 s', v_began + interval '3 s')
                else v_began + p_budget
           end;
end;
$$;

comment on function lapse.begin_tick(text, boolean, interval) is
    'Note who ticks; until when batches may begin.';
