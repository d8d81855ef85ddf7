-- market.assign_waiting_chats: one batch of policy assign_waiting_chats; waiting chats go to agents who have room.
--
-- In: at most p_limit chats, opened at p_cutoff or before, starting at opening
-- time p_after (inclusive), first come first served. Out: chats picked and
-- assigned, and the opening time reached; chats for which there is no room are
-- not picked. Raises nothing of its own. The backstop of trigger settle_chats,
-- for what that could not see: a transaction that rolled back with locks in its
-- hand, or one above read committed. It takes its turn with those who commit:
-- locks that it takes in vain would be passed over by them with nobody to look again.

create or replace function market.assign_waiting_chats(
    p_limit  integer,
    p_cutoff timestamptz,
    p_after  timestamptz
)
    returns lapse.progress
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    perform market.take_turn();

    return market.assign_chats(p_limit, p_cutoff, p_after, greatest(p_cutoff, now()));
end;
$$;

comment on function market.assign_waiting_chats(integer, timestamptz, timestamptz) is
    'Step of policy assign_waiting_chats: give at most p_limit waiting chats to agents who have room, first come first served.';
