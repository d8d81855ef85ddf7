-- lapse.short_name: a name that fits, and that no other long name is cut to.
--
-- In: a text. Out: the same where it has at most 63 bytes, as names may; else its beginning and eight
-- digits of its digest. The server would cut it, too, but two long names to the same one, and half a
-- character where it falls so.

create or replace function lapse.short_name(p_name text)
    returns text
    language sql
    immutable
    strict
    parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select case
               when octet_length(p_name) <= 63 then p_name
               else (select left(p_name, k.kept) || '_' || left(md5(p_name), 8)
                       from generate_series(54, 1, -1) as k (kept)
                      where octet_length(left(p_name, k.kept)) <= 54
                      limit 1)
           end
$$;

comment on function lapse.short_name(text) is
    'A text cut to the 63 bytes of a name, with a digest of what was cut away.';
