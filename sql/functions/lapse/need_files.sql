-- lapse.need_files: this transaction names these files; which of them are queued?
--
-- In: storages and paths, side by side. Out: those that are queued, dead ones included. They are announced first
-- (lapse.announce_files), so that a claim leaves them alone until this transaction has ended, also those that
-- another transaction is just condemning. Called by the triggers of lapse.attach_files, which then take out of the
-- queue (lapse.cancel_files) what a row really needs. Mostly nothing is queued that somebody needs, and that is
-- found out by one look at each file in the index, or at none where the queue is empty.

create or replace function lapse.need_files(p_storages text[], p_paths text[])
    returns table (storage text, path text)
    language plpgsql
    volatile
    security definer  -- the owner of a table needs no right on the queue itself
    set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan
    set enable_seqscan = off
    set jit = off
as $$
#variable_conflict use_column
begin
    perform lapse.announce_files(p_storages, p_paths);

    if cardinality(p_paths) > 1 and not exists (select from lapse.file_cleanup_queue) then
        return;
    end if;

    return query
    select q.storage, q.path
      from unnest(p_storages, p_paths) as f (storage, path)
     cross join lateral (select q.storage, q.path
                           from lapse.file_cleanup_queue as q
                          where q.storage = f.storage and lapse.path_digest(q.path) = lapse.path_digest(f.path)
                         offset 0) as q;
end;
$$;

comment on function lapse.need_files(text[], text[]) is
    'Say that this transaction names these files; returns those of them that are queued.';
