-- lapse.file_lock_key: the number under which a file is announced as needed.
--
-- In: a storage, and a path (NULL: every file of the storage). Out: a key for an advisory lock. Two files that
-- share one by chance cost a worker a second's wait, nothing else. See lapse.announce_files.

create or replace function lapse.file_lock_key(p_storage text, p_path text)
    returns bigint
    language sql
    immutable
    parallel safe
as $$
    select pg_catalog.hashtextextended(coalesce(p_path, ''), pg_catalog.hashtextextended(p_storage, 7813263518092))
$$;

comment on function lapse.file_lock_key(text, text) is
    'Internal: the advisory lock under which a transaction announces that it needs a file; NULL path: all of a storage.';
