-- lapse.file_backoff: how long a file waits after a failed attempt.
--
-- In: attempts so far, the first wait, the longest wait, and where in the spread this
-- one falls (0 to 1). Out: the wait, doubling with each attempt, between half of it
-- and all of it: a thousand files that failed together must not come back together.

create or replace function lapse.file_backoff(
    p_attempts integer,
    p_base     interval,
    p_cap      interval,
    p_spread   double precision
)
    returns interval
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
    select least(p_cap, p_base * power(2, least(greatest(p_attempts, 1), 31) - 1)) * (0.5 + 0.5 * p_spread)
$$;

comment on function lapse.file_backoff(integer, interval, interval, double precision) is
    'Internal: the wait after the given number of attempts, doubling up to a cap, spread over its upper half.';
