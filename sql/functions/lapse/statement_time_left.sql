-- lapse.statement_time_left: how long this statement may still take.
--
-- Out: what statement_timeout leaves, less two seconds, or half of a shorter limit, to
-- write things down; NULL without a limit. The timer covers a whole CALL with all its commits and can't
-- be set anew inside, so a run has to end by itself before it strikes.

create or replace function lapse.statement_time_left()
    returns interval
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    select t.whole - least(interval '2 s', t.whole / 2) - (clock_timestamp() - statement_timestamp())
      from (select nullif(current_setting('statement_timeout')::interval, interval '0') as whole) as t
$$;

comment on function lapse.statement_time_left() is
    'What statement_timeout leaves of this statement, less a reserve; NULL without a limit.';
