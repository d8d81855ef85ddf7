-- market.forget_session: delete a lapsed session, if nobody minds.
--
-- In: the token's hash and the time. Out: nothing. Called by market.get_session
-- for a session that it found lapsed: it raises nothing and waits for nobody, and
-- leaves to policy purge_sessions what it can't delete so. It does nothing in a
-- read-only transaction (a standby has no others); in a serializable one, which a
-- write could make fail at its end, where nobody would look for the reason; in a
-- repeatable read one, which would not see that the row is held (lapse.hold) since
-- a moment ago; where something that looks at deleted sessions is deferred; and to a row
-- that is held, that somebody else has locked or that was renewed meanwhile. Whatever
-- else fails (no right, a trigger, a foreign key, a locked table) is undone here.

create or replace function market.forget_session(
    p_token_hash bytea,
    p_now        timestamptz
)
    returns void
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
    set bytea_output = 'hex'
    set lock_timeout = '1 ms'
as $$
begin
    if current_setting('transaction_read_only')::boolean
       or current_setting('transaction_isolation') in ('serializable', 'repeatable read')
       or exists (select from pg_trigger as t
                   where t.tgrelid = 'market.sessions'::regclass and t.tgdeferrable) then
        return;
    end if;

    perform from market.sessions as s
      where s.token_hash = p_token_hash
        and s.expires_at <= p_now
        for update skip locked;
    if found then
        delete from market.sessions as s
         where s.token_hash = p_token_hash
           and p_token_hash::text not in (select lapse.held_keys('market.sessions'));
    end if;
exception
    when others then
        null;
end;
$$;

comment on function market.forget_session(bytea, timestamptz) is
    'Internal: delete a lapsed session, unless that would wait or fail.';
