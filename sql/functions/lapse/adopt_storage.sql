-- lapse.adopt_storage: a folder is a storage's root from now on, whatever its marker says.
--
-- In: the storage; the number found in the folder's marker, NULL where there is none. Out: the
-- number that the storage is known by now, and whether it has still to be written into the
-- folder. A number that the storage has already, or that this database knows by another storage's
-- name, is kept; otherwise there is a new one, so that no other folder can pass for this one: neither the
-- old disk, nor a mount point that got a marker by mistake, nor another database's workers.
-- LP001 for a NULL name, LP002 for a storage that no worker has served.
--
-- For operators, by way of `pglapse storage adopt`. Until the new number was seen in the folder, a
-- worker that finds no marker there may write it.

create or replace function lapse.adopt_storage(p_storage text, p_found uuid default null)
    returns table (marker uuid, to_write boolean)
    language plpgsql
    volatile
    security definer  -- an operator needs no right on the table itself
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_keep boolean;
begin
    if p_storage is null then
        raise exception 'which storage?'
            using errcode = 'LP001', hint = 'select storage from lapse.queue_by_storage';
    end if;

    perform from lapse.storage as s where s.name = p_storage for update;

    if not found then
        raise exception 'no worker has ever served storage %', p_storage
            using errcode = 'LP002', hint = 'Start a worker that has it in its configuration; there is nothing to adopt yet.';
    end if;

    v_keep := exists (select from lapse.storage as s where s.marker = p_found);

    return query
    update lapse.storage as s
       set marker    = case when v_keep then p_found else gen_random_uuid() end,
           marked_at = case when v_keep then clock_timestamp() end
     where s.name = p_storage
    returning s.marker, not v_keep;
end;
$$;

comment on function lapse.adopt_storage(text, uuid) is
    'For operators: let a storage''s folder be its root from now on; use pglapse storage adopt.';
