-- lapse.announce_files: let claims know of a reference that has not committed.
--
-- In: storages and paths, side by side. Out: nothing; never waits and never fails for want of a lock. Each file
-- is marked by a shared advisory lock, which ends with the transaction, whatever becomes of it;
-- lapse.files_in_use looks for such locks in pg_locks and takes none. A transaction marks 16 files by themselves
-- at most, since the server's lock table is small; one that names more marks whole storages, and those files wait
-- until it has ended. The lock must be held before the caller looks into the queue, and the claim looks for it after
-- it has locked the queue's row: so one of the two sees the other.

create or replace function lapse.announce_files(p_storages text[], p_paths text[])
    returns void
    language plpgsql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_marked integer := coalesce(nullif(current_setting('lapse.announced', true), ''), '0')::integer;
    v_files  integer := coalesce(cardinality(p_paths), 0);
begin
    if v_files = 1 and v_marked < 16 then
        perform pg_try_advisory_xact_lock_shared(lapse.file_lock_key(p_storages[1], p_paths[1]));
        perform set_config('lapse.announced', (v_marked + 1)::text, true);
    elsif v_marked + v_files <= 16 then
        perform pg_try_advisory_xact_lock_shared(lapse.file_lock_key(f.storage, f.path))
           from unnest(p_storages, p_paths) as f (storage, path)
          where f.storage is not null and f.path is not null;
        perform set_config('lapse.announced', (v_marked + v_files)::text, true);
    else
        perform pg_try_advisory_xact_lock_shared(lapse.file_lock_key(f.storage, null))
           from (select distinct s.storage from unnest(p_storages) as s (storage) where s.storage is not null) as f;
    end if;
end;
$$;

comment on function lapse.announce_files(text[], text[]) is
    'Internal: mark files as needed by this transaction, until it ends, for claims to see.';
