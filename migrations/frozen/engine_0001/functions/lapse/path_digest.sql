-- lapse.path_digest: what stands for a path in an index.
--
-- In: a path. Out: the SHA-256 of its UTF-8 bytes, 32 bytes; NULL for NULL.
-- A btree entry holds about 2,700 bytes and a longer path would make the
-- application's own INSERT fail, so indexes hold this instead. convert_to is
-- only stable, since conversions can be redefined; the one from a database
-- encoding to UTF-8 is as good as fixed, and so this may call itself immutable.

create or replace function lapse.path_digest(p_path text)
    returns bytea
    language sql
    immutable
    strict
    parallel safe
    set search_path = pg_catalog, pg_temp
as $$
    select sha256(convert_to(p_path, 'UTF8'))
$$;

comment on function lapse.path_digest(text) is
    'SHA-256 of a path''s UTF-8 bytes: what indexes hold in place of the path.';
