-- market.assign_chats: give waiting chats to agents who have room.
--
-- In: at most how many (NULL: all that there is room for), of those opened from
-- p_after to p_cutoff, the time, and to which agents alone (NULL: to any). Out:
-- chats picked and assigned, and the latest opening reached. First come first served; the agent with the fewest
-- chats is next, of those the one who was given none for longest. Whatever a
-- trigger keeps from being assigned is picked once and passed over.
--
-- An agent's row, locked, is the right to give that agent chats: it is held to
-- the end of the transaction, and how many there are is counted under it, in a
-- statement, and so a snapshot, of its own. All locks are taken with skip locked:
-- this never waits, so it can't be part of a deadlock. What it passes over
-- because somebody has it locked is looked at again by them when they commit
-- (trigger settle_chats). An older snapshot than a statement's own would count
-- wrong: above read committed it does nothing. See docs/decisions/0041.

create or replace function market.assign_chats(
    p_limit  integer,
    p_cutoff timestamptz,
    p_after  timestamptz,
    p_now    timestamptz,
    p_agents bigint[]    default null
)
    returns lapse.progress
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    v_result lapse.progress := row(0, 0, null);
    v_from   timestamptz := p_after;  -- what was given away before stays in the index until the commit
    v_full   bigint[] := '{}';
    v_kept   bigint[] := '{}';
    v_agent  bigint;
    v_chat   bigint;
    v_opened timestamptz;
    v_at     timestamptz;
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        return v_result;
    end if;

    while p_limit is null or v_result.picked < p_limit loop
        -- Where nobody waits, no agent is locked in vain.
        exit when not exists (select from market.chats as c
                               where c.status = 'waiting'
                                 and c.opened_at >= v_from
                                 and c.opened_at <= p_cutoff);

        select a.id
          into v_agent
          from market.agents as a
         cross join lateral (select count(*) as chats
                               from market.chats as c
                              where c.agent_id = a.id and c.status = 'active') as o
         where (p_agents is null or a.id = any (p_agents))
           and a.online
           and o.chats < a.max_chats
           and a.id <> all (v_full)
         order by o.chats, a.last_chat_at nulls first, a.id
         limit 1
           for no key update of a skip locked;
        exit when not found;

        if not exists (select from market.agents as a
                        where a.id = v_agent
                          and a.online
                          and a.max_chats > (select count(*) from market.chats as c
                                              where c.agent_id = a.id and c.status = 'active')) then
            v_full := v_full || v_agent;
            continue;
        end if;

        select c.id, c.opened_at
          into v_chat, v_opened
          from market.chats as c
         where c.status = 'waiting'
           and c.opened_at >= v_from
           and c.opened_at <= p_cutoff
           and c.id <> all (v_kept)
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'assign_waiting_chats'
                              and b.key = c.id::text
                              and b.retry_at > least(p_cutoff, p_now))
         order by c.opened_at, c.id
         limit 1
           for no key update of c skip locked;
        exit when not found;

        v_from := v_opened;
        v_at := greatest(p_now, v_opened);
        update market.chats as c
           set status = 'active', agent_id = v_agent, assigned_at = v_at
         where c.id = v_chat;
        if found then
            v_result.handled := v_result.handled + 1;
            update market.agents as a set last_chat_at = v_at where a.id = v_agent;
        else
            v_kept := v_kept || v_chat;
        end if;
        v_result.picked := v_result.picked + 1;
        v_result.reached := greatest(v_result.reached, v_opened);
    end loop;

    return v_result;
end;
$$;

comment on function market.assign_chats(integer, timestamptz, timestamptz, timestamptz, bigint[]) is
    'Internal: give waiting chats to agents who have room, first come first served, without waiting for any lock.';
