-- lapse.path_digest: what stands for a path in an index.
--
-- In: a path. Out: the SHA-256 of its bytes in the database's encoding, 32 bytes; NULL for NULL.
-- A btree entry holds about 2,700 bytes and a longer path would make the application's own INSERT
-- fail, so indexes hold this instead. Decoding with doubled backslashes gives the bytes of a text by
-- immutable functions alone; convert_to is only stable. It has no SET clause, so that the planner puts
-- its body where it is called: calls were a third of what queueing a file costs, and are now next to
-- nothing. In its place every name in it is qualified, and a column's collation is set aside: nothing can be replaced in a text
-- under one that takes different texts for equal, and a table with an index on this could not be written to.
-- The same goes for standard_conforming_strings: put in its place, it is read under the settings of whoever writes.

create or replace function lapse.path_digest(p_path text)
    returns bytea
    language sql
    immutable
    strict
    parallel safe
as $$
    select pg_catalog.sha256(pg_catalog.decode(pg_catalog.replace(p_path collate pg_catalog."C", E'\\', E'\\\\'), 'escape'))
$$;

comment on function lapse.path_digest(text) is
    'SHA-256 of a path''s bytes in the database''s encoding: what indexes hold in place of the path.';
