-- lapse.grace_term: the time from when on a file may go, as SQL.
--
-- In: how long it is kept, an interval as text. Out: an expression. It counts from the beginning of the
-- transaction that gave the file up.

create or replace function lapse.grace_term(p_grace text)
    returns text
    language sql
    stable
    set search_path = pg_catalog, pg_temp
as $$
    select case when p_grace::interval = interval '0' then 'now()' else format('now() + interval %L', p_grace) end
$$;

comment on function lapse.grace_term(text) is 'Internal: now, or now and a grace, as SQL.';
