-- lapse.need_file: this transaction names this file; is it queued?
--
-- In: a storage and a path. Out: whether the file is queued, dead or not. What lapse.need_files does, for the one
-- file that most statements bring: there, half of the time goes into setting up what is for many.

create or replace function lapse.need_file(p_storage text, p_path text)
    returns boolean
    language plpgsql
    volatile
    security definer  -- the owner of a table needs no right on the queue itself
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    v_marked integer := coalesce(nullif(current_setting('lapse.announced', true), ''), '0')::integer;
begin
    if v_marked < 16 then
        perform pg_try_advisory_xact_lock_shared(lapse.file_lock_key(p_storage, p_path));
        perform set_config('lapse.announced', (v_marked + 1)::text, true);
    else
        perform lapse.announce_files(array[p_storage], array[p_path]);
    end if;

    return exists (select
                     from lapse.file_cleanup_queue as q
                    where q.storage = p_storage and lapse.path_digest(q.path) = lapse.path_digest(p_path));
end;
$$;

comment on function lapse.need_file(text, text) is
    'Say that this transaction names this file; returns whether it is queued.';
