-- market.post_message: somebody writes in a chat.
--
-- In: the chat, who writes (user, agent or system), the text, and the time. Out:
-- the message's id. What people write keeps the chat from being idle (trigger
-- note_chat_activity). Raises LP101 unknown chat, LP120 ended, LP108 an unknown
-- author, an empty text, or NULL given. The chat is locked before it is looked
-- at: of a message and the end, one comes first and the other knows. A message by
-- the system changes nothing for the end, so it needs no such lock, and would only
-- hide a waiting chat from who is about to assign it.

create or replace function market.post_message(
    p_chat_id     bigint,
    p_author_kind text,
    p_body        text,
    p_now         timestamptz default now()
)
    returns bigint
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_chat       market.chats;
    v_message_id bigint;
begin
    if num_nulls(p_chat_id, p_author_kind, p_body, p_now) > 0 then
        raise exception 'post_message was given NULL'
            using errcode = 'LP108', hint = 'Give a chat, who writes, a text and a time.';
    elsif p_author_kind not in ('user', 'agent', 'system') then
        raise exception 'there are no authors of kind "%"', left(p_author_kind, 100)
            using errcode = 'LP108', hint = 'Use user, agent or system.';
    elsif p_body = '' then
        raise exception 'a message can''t be empty'
            using errcode = 'LP108', hint = 'Give a text.';
    end if;

    if p_author_kind = 'system' then
        select c.* into v_chat from market.chats as c where c.id = p_chat_id for key share;
    else
        select c.* into v_chat from market.chats as c where c.id = p_chat_id for no key update;
    end if;
    if v_chat.id is null then
        raise exception 'chat % is unknown', p_chat_id
            using errcode = 'LP101', hint = 'It may have been purged: look in market.chats.';
    elsif v_chat.status = 'ended' then
        raise exception 'chat % has ended', p_chat_id
            using errcode = 'LP120',
                  hint = format('It ended at %s: %s. Open another with market.open_chat.',
                                v_chat.ended_at, left(v_chat.end_reason, 100));
    end if;

    insert into market.chat_messages (chat_id, author_kind, body, created_at)
    values (p_chat_id, p_author_kind, p_body, p_now)
    returning id into v_message_id;

    return v_message_id;
end;
$$;

comment on function market.post_message(bigint, text, text, timestamptz) is
    'Write in a chat that has not ended; returns the message''s id. LP101 unknown, LP108 bad author or text, LP120 ended.';
