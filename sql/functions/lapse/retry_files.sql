-- lapse.retry_files: try dead files again, once whatever was wrong with them is mended.
--
-- In: numbers of queue rows, a storage, both (either may be NULL: all). Out: how many dead
-- rows were revived; rows that are not dead are left as they are. They are due at once, with
-- their attempts forgotten, and workers are nudged.

create or replace function lapse.retry_files(p_ids bigint[] default null, p_storage text default null)
    returns bigint
    language plpgsql
    volatile
    security definer  -- an operator needs no right on the queue itself
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_count bigint;
begin
    with dead as materialized (
        select q.id
          from lapse.file_cleanup_queue as q
         where q.dead_at is not null
           and (p_ids is null or q.id = any (p_ids))
           and (p_storage is null or q.storage = p_storage)
         order by q.storage, lapse.path_digest(q.path)
           for update
    )
    update lapse.file_cleanup_queue as q
       set dead_at = null, attempts = 0, lost = 0, last_error = null, not_before = now(),
           leased_at = null, leased_until = null, leased_by = null, lease_token = null, lease_size = null,
           again_at = null, cancelled_at = null
     where q.id = any (array(select d.id from dead as d));
    get diagnostics v_count = row_count;

    if v_count > 0 then
        perform pg_notify('file_cleanup_queue', '');
    end if;

    return v_count;
end;
$$;

comment on function lapse.retry_files(bigint[], text) is
    'Revive dead queue rows, all or those named, and try them at once; returns how many.';
