-- market.end_chat: a chat is over.
--
-- In: the chat, why, and the time. Out: nothing. The agent's slot is given to who
-- waits, at once. Raises LP101 unknown, LP120 ended already, LP108 NULL given. Of
-- two who end it at once, one gets LP120.

create or replace function market.end_chat(
    p_chat_id bigint,
    p_reason  text        default 'closed',
    p_now     timestamptz default now()
)
    returns void
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_chat market.chats;
begin
    if num_nulls(p_chat_id, p_reason, p_now) > 0 then
        raise exception 'end_chat was given NULL'
            using errcode = 'LP108', hint = 'Give a chat, a reason and a time.';
    end if;

    select c.* into v_chat from market.chats as c where c.id = p_chat_id for no key update;
    if not found then
        raise exception 'chat % is unknown', p_chat_id
            using errcode = 'LP101', hint = 'It may have been purged: look in market.chats.';
    elsif v_chat.status = 'ended' then
        raise exception 'chat % has ended', p_chat_id
            using errcode = 'LP120',
                  hint = format('It ended at %s: %s.', v_chat.ended_at, left(v_chat.end_reason, 100));
    end if;

    update market.chats as c
       set status = 'ended', ended_at = p_now, end_reason = p_reason
     where c.id = p_chat_id;

    if v_chat.status = 'active' then
        perform market.assign_at_once(p_now, array[v_chat.agent_id]);
    end if;
end;
$$;

comment on function market.end_chat(bigint, text, timestamptz) is
    'End a chat; its slot is given away at once. LP101 unknown, LP120 ended already.';
