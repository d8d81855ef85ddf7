-- stamp_chat: a chat's state, agent and times always match.
--
-- Fires before every INSERT and UPDATE of a chat. A waiting chat that is given an
-- agent becomes active. An active one whose agent is taken away, as by the
-- agent's deletion, waits again, in its old place; so does one that is set back to
-- waiting. What was not given is filled in, what another state had is cleared.
-- Whoever is assigned or given to another agent is not idle; and any later
-- activity takes the warning back.

create or replace function market.stamp_chat()
    returns trigger
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if tg_op = 'UPDATE' then
        if new.status = 'waiting' and old.status <> 'waiting' then
            new.agent_id := null;
        elsif new.status = 'active' and new.agent_id is null and old.agent_id is not null then
            new.status := 'waiting';
        end if;
    end if;
    if new.status = 'waiting' and new.agent_id is not null then
        new.status := 'active';
    end if;

    if new.status <> 'ended' then
        new.ended_at := null;
        new.end_reason := null;
    elsif new.ended_at is null then
        new.ended_at := now();
    end if;

    if new.status = 'waiting' then
        new.assigned_at := null;
        new.warned_at := null;
    elsif new.status = 'active' then
        if tg_op = 'INSERT' then
            new.assigned_at := coalesce(new.assigned_at, now());
        elsif old.status <> 'active' or new.agent_id is distinct from old.agent_id then
            if new.assigned_at is null or new.assigned_at is not distinct from old.assigned_at then
                new.assigned_at := now();
            end if;
            new.last_activity_at := greatest(new.last_activity_at, new.assigned_at);
        end if;
        if tg_op = 'UPDATE'
           and new.last_activity_at > old.last_activity_at
           and new.warned_at is not distinct from old.warned_at then
            new.warned_at := null;
        end if;
    end if;

    return new;
end;
$$;

comment on function market.stamp_chat() is
    'Trigger: keep a chat''s state, agent and times in step.';

create or replace trigger stamp_chat
    before insert or update on market.chats
    for each row
    execute function market.stamp_chat();

comment on trigger stamp_chat on market.chats is 'State, agent and times match.';
