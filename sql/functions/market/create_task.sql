-- market.create_task: post a task, with the files that were uploaded for it.
--
-- In: who posts it, its title, its deadline (NULL: never), the uploads that
-- become its files, whether the poster's other uploads are discarded, and the
-- time. Out: the task's id. All of it is one transaction: the uploads become rows
-- of task_files with the same path, so nothing is copied or queued, and the files
-- of those discarded are queued now; others that are held (lapse.hold) stay. Turn p_discard_others off where a user has
-- several drafts at a time.
--
-- Raises LP101 unknown user or upload (it may have lapsed and gone), LP105
-- somebody else's upload, LP102 lapsed (whether or not the sweep has been),
-- LP109 its file is gone or being deleted, LP108 NULL given, uploads that are no
-- plain list, or a deadline that is not in the future. The message names the
-- upload, and nothing has changed.
--
-- Lock order: the user, the named uploads by number, waiting for whoever has
-- them: of two tasks that want the same upload, one gets it. Other uploads are
-- never waited for: whoever has one locked is taking or deleting it.

create or replace function market.create_task(
    p_poster_id      bigint,
    p_title          text,
    p_deadline       timestamptz default null,
    p_upload_ids     bigint[]    default '{}',
    p_discard_others boolean     default true,
    p_now            timestamptz default now()
)
    returns bigint
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_task_id  bigint;
    v_bad      record;
    v_storages text[];
    v_paths    text[];
begin
    if array_ndims(p_upload_ids) > 1 then
        raise exception 'create_task was given uploads in % dimensions', array_ndims(p_upload_ids)
            using errcode = 'LP108', hint = 'Give a plain list of numbers, such as array[17, 18].';
    elsif num_nulls(p_poster_id, p_title, p_discard_others, p_now) > 0
       or array_position(p_upload_ids, null) is not null then
        raise exception 'create_task was given NULL'
            using errcode = 'LP108', hint = 'Give a user, a title and a time; only the deadline may be NULL.';
    elsif p_deadline <= p_now then
        raise exception 'can''t post a task whose deadline was %', p_deadline
            using errcode = 'LP108', hint = 'Give a deadline in the future, or NULL for never.';
    end if;

    perform from market.users as u where u.id = p_poster_id for key share;
    if not found then
        raise exception 'user % is unknown', p_poster_id
            using errcode = 'LP101', hint = 'Look in market.users.';
    end if;

    perform from market.temp_uploads as u where u.id = any (p_upload_ids) order by u.id for update;

    select a.id, u.user_id, u.path, u.expires_at, u.removed_at
      into v_bad
      from unnest(p_upload_ids) with ordinality as a (id, position)
      left join market.temp_uploads as u on u.id = a.id
     where u.id is null
        or u.user_id <> p_poster_id
        or u.expires_at <= p_now
        or u.removed_at is not null
     order by a.position
     limit 1;
    if found then
        if v_bad.user_id is null then
            raise exception 'upload % is unknown', v_bad.id
                using errcode = 'LP101', hint = 'It may have lapsed, been discarded or become another task''s: upload the file again.';
        elsif v_bad.user_id <> p_poster_id then
            raise exception 'upload % is not yours', v_bad.id
                using errcode = 'LP105', hint = 'Another user uploaded it.';
        elsif v_bad.expires_at <= p_now then
            raise exception 'upload % ("%") has lapsed', v_bad.id, v_bad.path
                using errcode = 'LP102', hint = format('It was kept until %s: upload the file again.', v_bad.expires_at);
        else
            raise exception 'upload % ("%") has no file any more', v_bad.id, v_bad.path
                using errcode = 'LP109', hint = format('It was removed at %s: upload the file again.', v_bad.removed_at);
        end if;
    end if;

    insert into market.tasks (poster_id, title, deadline, created_at)
    values (p_poster_id, p_title, p_deadline, p_now)
    returning id into v_task_id;

    with taken as (
        insert into market.task_files (task_id, storage, path, bytes, uploaded_at)
        select v_task_id, u.storage, u.path, u.bytes, u.uploaded_at
          from market.temp_uploads as u
         where u.id = any (p_upload_ids)
         order by u.id
        returning storage, path
    )
    select array_agg(t.storage), array_agg(t.path) into v_storages, v_paths from taken as t;

    -- Where a file had been queued by hand, the triggers took it out, unless it was too late.
    select c.path into v_bad from lapse.cancel_files(v_storages, v_paths) as c limit 1;
    if found then
        raise exception 'the file "%" is being deleted', v_bad.path
            using errcode = 'LP109', hint = 'It was queued although its upload had not lapsed: upload the file again, under a new name.';
    end if;

    delete from market.temp_uploads as u where u.id = any (p_upload_ids);

    if p_discard_others then
        with others as materialized (
            select u.id from market.temp_uploads as u where u.user_id = p_poster_id order by u.id for update skip locked
        )
        delete from market.temp_uploads as u
         using others as o
         where u.id = o.id
           and u.id::text not in (select lapse.held_keys('market.temp_uploads'));
    end if;

    return v_task_id;
end;
$$;

comment on function market.create_task(bigint, text, timestamptz, bigint[], boolean, timestamptz) is
    'Post a task with uploads as its files, and discard the poster''s other uploads; returns the task''s id. LP101 unknown, LP102 lapsed, LP105 not yours, LP108 bad argument, LP109 the file is gone.';
