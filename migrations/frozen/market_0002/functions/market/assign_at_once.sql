-- market.assign_at_once: give away what can be given away, and never fail whoever asks.
--
-- In: the time, and to which agents alone (NULL: to any). Out: nothing. Called when
-- a chat was opened, an agent came online or a slot became free: what goes wrong with somebody else's chat is not the
-- caller's business. It is undone and told as a warning, and policy
-- assign_waiting_chats meets it again, names the row and sets it aside. Where
-- nobody waits this costs one look into an index.

create or replace function market.assign_at_once(
    p_now    timestamptz,
    p_agents bigint[]    default null
)
    returns void
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
begin
    if exists (select from market.chats as c where c.status = 'waiting') then
        perform market.assign_chats(null, 'infinity', '-infinity', p_now, p_agents);
    end if;
exception
    when others then
        raise warning 'no chat could be assigned at once: %', sqlerrm
            using errcode = sqlstate, hint = 'Policy assign_waiting_chats tries again within 30 seconds.';
end;
$$;

comment on function market.assign_at_once(timestamptz, bigint[]) is
    'Internal: give waiting chats to agents who have room; whatever goes wrong is a warning.';
