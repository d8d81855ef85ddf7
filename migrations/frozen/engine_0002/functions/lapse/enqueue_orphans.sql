-- lapse.enqueue_orphans: queue files that a sweep found and no row knows.
--
-- In: a storage; paths, and side by side what each file was when it was seen ({"size", "mtime_ns"}): one that
-- was written anew since will be left alone. Out: how many were queued. Those that a row has come to
-- know meanwhile are left out. LP013 as of lapse.unknown_files, LP001 for arrays of different length, LP014 in a
-- database that is not adopted: it does not know what its original has come to know since.

create or replace function lapse.enqueue_orphans(p_storage text, p_paths text[], p_expected jsonb[])
    returns bigint
    language plpgsql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform lapse.check_adopted();

    if coalesce(cardinality(p_paths), 0) <> coalesce(cardinality(p_expected), 0) then
        raise exception 'got % paths and % guards', cardinality(p_paths), cardinality(p_expected)
            using errcode = 'LP001', hint = 'Give one guard for each path.';
    end if;

    return lapse.enqueue_files(array(
        select row(p_storage, f.path, null, 'orphan', null, null, f.expected)::lapse.file_request
          from unnest(p_paths, p_expected) as f (path, expected)
          join lapse.unknown_files(p_storage, p_paths) as u on u.path = f.path));
end;
$$;

comment on function lapse.enqueue_orphans(text, text[], jsonb[]) is
    'For sweeps: queue files that no row knows, each guarded by what it was when it was seen.';
