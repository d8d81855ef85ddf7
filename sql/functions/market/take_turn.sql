-- market.take_turn: those who change chats commit one after the other.
--
-- Waits for who has the turn, and has it until the end of the transaction. Taken
-- at the very end, by trigger settle_chats, where PostgreSQL makes all
-- transactions that NOTIFY take turns anyway. Whoever has it waits for nobody, so
-- no deadlock comes from it; and whoever has it sees all that others have done,
-- in a statement of its own, since they are visible before their turn ends.

create or replace function market.take_turn()
    returns void
    language sql
    volatile
    set search_path = pg_catalog, pg_temp
as $$
    select pg_advisory_xact_lock(1835102827, 1)
$$;

comment on function market.take_turn() is
    'Internal: wait for the turn to commit changes of chats, and have it until the end of the transaction.';
