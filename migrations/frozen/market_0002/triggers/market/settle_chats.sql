-- settle_chats: at commit, tell what happened to chats, and give away what became free.
--
-- Deferred to the end of the transaction, whoever made the change and however
-- long it takes. There transactions take turns (market.take_turn), the last thing
-- that they do. So the numbers of events are in the order of commits, and of a chat
-- that was opened and a slot that became free at the same moment, whichever
-- comes second sees the first: no chat waits while a slot is free. An event is a
-- row in market.chat_events and a notification, sent by the server after the
-- commit: a few ids, and at most 100 characters of a reason.
--
-- SET CONSTRAINTS ... IMMEDIATE takes the turn early: all who change chats then
-- wait for that transaction. A transaction above read committed assigns nothing
-- (market.assign_chats). Raises nothing of its own.

create or replace function market.settle_chats()
    returns trigger
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set timezone = 'UTC'
as $$
declare
    v_chat  market.chats;
    v_event market.chat_events;
begin
    perform market.take_turn();

    if tg_table_name = 'chats' then
        v_chat := coalesce(new, old);
        v_event.agent_id := v_chat.agent_id;
        if tg_op = 'DELETE' then
            v_event.kind := 'ended';
            v_event.reason := 'deleted';
            v_event.happened_at := now();
        elsif v_chat.status = 'ended' and old.status <> 'ended' then
            v_event.kind := 'ended';
            v_event.reason := left(v_chat.end_reason, 100);
            v_event.happened_at := v_chat.ended_at;
        elsif v_chat.status = 'active'
              and (old.status is distinct from 'active' or old.agent_id is distinct from v_chat.agent_id) then
            v_event.kind := 'assigned';
            v_event.happened_at := v_chat.assigned_at;
        elsif v_chat.status = 'active' and v_chat.warned_at is not null
              and old.warned_at is distinct from v_chat.warned_at then
            v_event.kind := 'warned';
            v_event.happened_at := v_chat.warned_at;
        elsif v_chat.status = 'waiting' and old.status <> 'waiting' then
            v_event.kind := 'requeued';
            v_event.agent_id := old.agent_id;
            v_event.happened_at := now();
        end if;

        if v_event.kind is not null then
            insert into market.chat_events (kind, chat_id, user_id, agent_id, reason, happened_at)
            values (v_event.kind, v_chat.id, v_chat.user_id, v_event.agent_id, v_event.reason, v_event.happened_at)
            returning id into v_event.id;

            perform pg_notify('market_chat_events',
                              json_build_object('id', v_event.id, 'kind', v_event.kind, 'chat', v_chat.id,
                                                'user', v_chat.user_id, 'agent', v_event.agent_id,
                                                'reason', v_event.reason, 'at', v_event.happened_at)::text);
        end if;
    end if;

    -- A waiting chat may go to anybody. A slot, or an agent whom this transaction hid, goes to who came
    -- first: with many agents, and chats that end by the hundred, asking after all of them each time is slow.
    if tg_table_name = 'agents' then
        perform market.assign_at_once(now(), array[new.id]);
    elsif tg_op = 'DELETE' then
        perform market.assign_at_once(now(), array[old.agent_id]);
    elsif v_chat.status = 'waiting' then
        perform market.assign_at_once(now());
    elsif v_event.kind is distinct from 'warned' then
        perform market.assign_at_once(now(), array[old.agent_id, new.agent_id]);
    end if;

    return null;
end;
$$;

comment on function market.settle_chats() is
    'Trigger, at commit: write and send the events of changed chats, and give waiting ones to agents who have room.';

-- A constraint trigger can't be replaced.
drop trigger if exists settle_chats_insert on market.chats;
create constraint trigger settle_chats_insert
    after insert on market.chats
    deferrable initially deferred
    for each row
    when (new.status <> 'ended')
    execute function market.settle_chats();

drop trigger if exists settle_chats_update on market.chats;
create constraint trigger settle_chats_update
    after update on market.chats
    deferrable initially deferred
    for each row
    when (new.status = 'waiting'
          or new.status <> old.status
          or new.status = 'active' and new.agent_id is distinct from old.agent_id
          or new.status = 'active' and new.warned_at is not null and new.warned_at is distinct from old.warned_at)
    execute function market.settle_chats();

drop trigger if exists settle_chats_delete on market.chats;
create constraint trigger settle_chats_delete
    after delete on market.chats
    deferrable initially deferred
    for each row
    when (old.status <> 'ended')
    execute function market.settle_chats();

drop trigger if exists settle_chats_agent on market.agents;
create constraint trigger settle_chats_agent
    after insert or update of online, max_chats, display_name on market.agents
    deferrable initially deferred
    for each row
    when (new.online)
    execute function market.settle_chats();

comment on trigger settle_chats_insert on market.chats is 'A new chat is told of, and given to an agent who has room.';
comment on trigger settle_chats_update on market.chats is 'What happened to a chat is told, and its slot given away.';
comment on trigger settle_chats_delete on market.chats is 'A deleted chat is told of, and its slot given away.';
comment on trigger settle_chats_agent on market.agents is 'An agent who has room is given waiting chats.';
