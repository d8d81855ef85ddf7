-- market.register_temp_upload: a file was uploaded for a task that does not exist yet.
--
-- In: who uploaded it, where it is, its size, when it lapses (NULL: in 24 hours),
-- and the time. Out: the upload's number, for market.create_task. Registering
-- one's own upload again, since its file was written anew, starts its time anew.
--
-- Raises LP101 unknown user; LP105 the file is another user's; LP107 it is
-- a file of one's own task already; LP109 a worker is deleting what had this name
-- before; LP108 NULL given, no such storage, an expiry that is not in the future, or
-- a path that could name somebody else's file in disguise (absolute, with an empty
-- part, . or ..), which no worker would touch either. Nothing is written then.

create or replace function market.register_temp_upload(
    p_user_id    bigint,
    p_storage    text,
    p_path       text,
    p_bytes      bigint      default null,
    p_expires_at timestamptz default null,
    p_now        timestamptz default now()
)
    returns bigint
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_task   bigint;
    v_poster bigint;
    v_id     bigint;
begin
    if num_nulls(p_user_id, p_storage, p_path, p_now) > 0 then
        raise exception 'register_temp_upload was given NULL'
            using errcode = 'LP108', hint = 'Give a user, a storage, a path and a time; only size and expiry may be NULL.';
    elsif p_storage not in ('public', 'private') then
        raise exception 'there is no storage "%"', left(p_storage, 100)
            using errcode = 'LP108', hint = 'Give ''public'' or ''private''.';
    elsif p_path ~ '(^|/)\.{0,2}(/|$)' or octet_length(p_path) > 4095 then
        raise exception 'path "%" can''t be an upload''s', left(p_path, 100)
            using errcode = 'LP108',
                  hint = 'Give a path below the storage''s root, of at most 4,095 bytes, without a leading, trailing or double slash, . or ..';
    elsif p_bytes < 0 then
        raise exception 'an upload can''t have % bytes', p_bytes
            using errcode = 'LP108', hint = 'Give its size, or NULL.';
    elsif p_expires_at <= p_now then
        raise exception 'can''t register an upload that lapsed at %', p_expires_at
            using errcode = 'LP108', hint = 'Give an expiry in the future, or NULL for 24 hours.';
    end if;

    perform from market.users as u where u.id = p_user_id for key share;
    if not found then
        raise exception 'user % is unknown', p_user_id
            using errcode = 'LP101', hint = 'Look in market.users.';
    end if;

    insert into market.temp_uploads as u (user_id, storage, path, bytes, uploaded_at, expires_at)
    values (p_user_id, p_storage, p_path, p_bytes, p_now, coalesce(p_expires_at, p_now + interval '24 hours'))
    on conflict (storage, lapse.path_digest(path)) do update
       set bytes = excluded.bytes, uploaded_at = excluded.uploaded_at, expires_at = excluded.expires_at,
           named_at = clock_timestamp(), removed_at = null
     where u.user_id = excluded.user_id
    returning u.id into v_id;
    if v_id is null then
        raise exception 'the file "%" is not yours', p_path
            using errcode = 'LP105', hint = 'Another user uploaded it: use a new name for each upload.';
    end if;

    -- Only now: of an upload that its owner's task was just taking, the insert waited for the end.
    select t.id, t.poster_id
      into v_task, v_poster
      from market.task_files as f
      join market.tasks as t on t.id = f.task_id
     where f.storage = p_storage
       and lapse.path_digest(f.path) = lapse.path_digest(p_path)
       and f.removed_at is null
     order by t.poster_id = p_user_id, t.id
     limit 1;
    if v_poster <> p_user_id then
        raise exception 'the file "%" is not yours', p_path
            using errcode = 'LP105', hint = 'It is a file of another user''s task: use a new name for each upload.';
    elsif found then
        raise exception 'the file "%" is a file of task % already', p_path, v_task
            using errcode = 'LP107', hint = 'Use a new name for each upload.';
    end if;

    -- The triggers took it out of the queue, unless it was too late.
    if exists (select from lapse.cancel_files(array[p_storage], array[p_path])) then
        raise exception 'the file "%" is being deleted', p_path
            using errcode = 'LP109', hint = 'It was queued before it was uploaded again: use a new name for each upload.';
    end if;

    return v_id;
end;
$$;

comment on function market.register_temp_upload(bigint, text, text, bigint, timestamptz, timestamptz) is
    'Register a file uploaded before its task exists; returns the upload''s id. It lapses after 24 hours. LP101 unknown user, LP105 not yours, LP107 a task''s already, LP108 bad argument, LP109 being deleted.';
