-- lapse.shell_word: a text as one word of a shell's command line.
--
-- In: any text. Out: itself where a shell reads it as it is, else in single quotes. For commands
-- that are shown to be typed: names of storages come from applications, and nobody should run
-- what one of them says.

create or replace function lapse.shell_word(p_text text)
    returns text
    language sql
    immutable
    strict
    set search_path = pg_catalog, pg_temp
as $$
    select case when p_text ~ '\A[A-Za-z0-9_./=-]+\Z' then p_text
                else '''' || replace(p_text, '''', '''\''''') || '''' end
$$;

comment on function lapse.shell_word(text) is
    'A text as one word of a shell''s command line, quoted where needed.';
