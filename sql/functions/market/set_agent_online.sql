-- market.set_agent_online: an agent comes or goes.
--
-- In: the agent, whether online, and the time. Out: nothing. Who comes is given
-- waiting chats at once; who goes keeps the chats that are under way and gets no
-- more. Raises LP101 unknown agent, LP108 NULL given. The row is written even
-- where nothing changes, so that trigger settle_chats looks again at the end: the
-- lock on it may have hidden this agent from somebody.

create or replace function market.set_agent_online(
    p_agent_id bigint,
    p_online   boolean,
    p_now      timestamptz default now()
)
    returns void
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if num_nulls(p_agent_id, p_online, p_now) > 0 then
        raise exception 'set_agent_online was given NULL'
            using errcode = 'LP108', hint = 'Give an agent, whether online, and a time.';
    end if;

    update market.agents as a set online = p_online where a.id = p_agent_id;
    if not found then
        raise exception 'agent % is unknown', p_agent_id
            using errcode = 'LP101', hint = 'Look in market.agents.';
    end if;

    if p_online then
        perform market.assign_at_once(p_now, array[p_agent_id]);
    end if;
end;
$$;

comment on function market.set_agent_online(bigint, boolean, timestamptz) is
    'An agent comes online, and is given waiting chats at once, or goes offline. LP101 unknown agent.';
