-- lapse.storage_marker: by which number a worker knows a storage's root from any other folder.
--
-- In: the storage; the number that the worker found in the root's marker, NULL where there is none.
-- Out: the number that must be there, and whether the worker may write it there, which is so until
-- one has seen it there. On first use, where neither side has a number, the root is trusted and
-- the database makes one up. A number that this database knows by another storage's name is taken over:
-- two names for one folder. LP001 for a NULL name, LP002 for a storage that no worker has served
-- (lapse.worker_hello), LP011 for a number that is another database's.
--
-- A worker that finds another number than the one answered deletes nothing. That is why what is
-- once seen stays: a root that has no marker any more is not a first use, it is not mounted.

create or replace function lapse.storage_marker(p_storage text, p_found uuid default null)
    returns table (marker uuid, may_write boolean)
    language plpgsql
    volatile
    security definer  -- a worker has no right on any table
    set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    v_row lapse.storage;
begin
    if p_storage is null then
        raise exception 'which storage''s marker?'
            using errcode = 'LP001', hint = 'Give the name that the worker''s configuration has.';
    end if;

    select * into v_row from lapse.storage as s where s.name = p_storage for update;

    if not found then
        raise exception 'no worker has ever served storage %', p_storage
            using errcode = 'LP002', hint = 'Name it to lapse.worker_hello first.';
    end if;

    if v_row.marked_at is null and p_found is null then
        v_row.marker := coalesce(v_row.marker, gen_random_uuid());
    elsif v_row.marked_at is null then
        if p_found is distinct from v_row.marker
           and not exists (select from lapse.storage as s where s.marker = p_found) then
            raise exception 'the folder has a marker that this database does not know, %', p_found
                using errcode = 'LP011',
                      hint = format('It is another database''s, and two must not delete in one folder; or this database '
                                    'was restored from before it was made. Look at root in the configuration. If it is '
                                    'right: pglapse storage adopt %s', p_storage);
        end if;

        v_row.marker := p_found;
        v_row.marked_at := clock_timestamp();
    end if;

    update lapse.storage as s
       set marker = v_row.marker, marked_at = v_row.marked_at
     where s.name = p_storage
       and (s.marker, s.marked_at) is distinct from (v_row.marker, v_row.marked_at);

    return query select v_row.marker, v_row.marked_at is null;
end;
$$;

comment on function lapse.storage_marker(text, uuid) is
    'For workers: the number that a storage''s root is known by, and whether it may be written there.';
