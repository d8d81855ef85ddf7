-- lapse.tick_wanted: whether a worker should keep the schedule now.
--
-- In: the worker's --tick mode. Out: 'always' true, 'never' false, 'auto' true
-- where pg_cron has not called lapse.run_due for two minutes: it is not there,
-- was not scheduled, or its launcher is dead, and all three look the same from
-- here. Another mode raises LP001. The database's clock decides, since the ticks
-- were written by it; a tick from the future (the clock was set back, or a dump
-- was restored) counts no longer than one from the past.

create or replace function lapse.tick_wanted(p_mode text)
    returns boolean
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    c_patience constant interval := interval '2 minutes';
begin
    case p_mode
        when 'always' then
            return true;
        when 'never' then
            return false;
        when 'auto' then
            return not exists (
                select from lapse.tick_source as t
                 where t.source = 'pg_cron'
                   and t.last_tick_at > clock_timestamp() - c_patience
                   and t.last_tick_at < clock_timestamp() + c_patience
            );
        else
            raise exception 'tick mode %: there is no such mode', coalesce(quote_literal(p_mode), 'NULL')
                using errcode = 'LP001',
                      hint = 'Use auto, always or never.';
    end case;
end;
$$;

comment on function lapse.tick_wanted(text) is
    'Whether a worker should call lapse.run_due: always, never, or auto, where pg_cron has not ticked for two minutes.';
