-- market.open_chat: a user asks for support.
--
-- In: the user and the time. Out: the chat's id. Where an agent has room it is
-- active at once, else it waits; either way market.chat_events will tell. Raises
-- LP101 unknown user, LP108 NULL given.

create or replace function market.open_chat(
    p_user_id bigint,
    p_now     timestamptz default now()
)
    returns bigint
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_chat_id bigint;
begin
    if num_nulls(p_user_id, p_now) > 0 then
        raise exception 'open_chat was given NULL'
            using errcode = 'LP108', hint = 'Give a user and a time.';
    end if;

    perform from market.users as u where u.id = p_user_id for key share;
    if not found then
        raise exception 'user % is unknown', p_user_id
            using errcode = 'LP101', hint = 'Look in market.users.';
    end if;

    insert into market.chats (user_id, opened_at, last_activity_at)
    values (p_user_id, p_now, p_now)
    returning id into v_chat_id;

    perform market.assign_at_once(p_now);

    return v_chat_id;
end;
$$;

comment on function market.open_chat(bigint, timestamptz) is
    'Open a support chat, given to an agent at once where there is room; returns its id. LP101 unknown user.';
