-- lapse.need_file: this transaction names this file; is it queued?
--
-- In: a storage and a path. Out: whether the file is queued, dead or not. What lapse.need_files does, for the one
-- file that most statements bring: there, much of the time goes into setting up what is for many.

create or replace function lapse.need_file(p_storage text, p_path text)
    returns boolean
    language plpgsql
    volatile
    security definer  -- the owner of a table needs no right on the queue itself
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
begin
    perform lapse.announce_files(array[p_storage], array[p_path]);

    return exists (select
                     from lapse.file_cleanup_queue as q
                    where q.storage = p_storage and lapse.path_digest(q.path) = lapse.path_digest(p_path));
end;
$$;

comment on function lapse.need_file(text, text) is
    'Say that this transaction names this file; returns whether it is queued.';
