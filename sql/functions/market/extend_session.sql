-- market.extend_session: move a sliding session on, if nobody minds.
--
-- In: the token's hash, until when, and the time. Out: whether it was moved.
-- Called by market.get_session: it raises nothing and waits for nobody. It does
-- nothing in a read-only transaction (a standby has no others), to a row that
-- somebody else has locked, and to one that has lapsed or was moved less than a
-- minute ago, as judged under the lock. In a serializable transaction it is a
-- write like any other, for which that transaction may have to be repeated.

create or replace function market.extend_session(
    p_token_hash bytea,
    p_until      timestamptz,
    p_now        timestamptz
)
    returns boolean
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
    set lock_timeout = '1 ms'
as $$
begin
    if current_setting('transaction_read_only')::boolean then
        return false;
    end if;

    perform from market.sessions as s
      where s.token_hash = p_token_hash
        and s.expires_at > p_now
        and s.expires_at <= p_until - interval '1 minute'
        for no key update skip locked;
    if not found then
        return false;
    end if;

    update market.sessions as s set expires_at = p_until where s.token_hash = p_token_hash;

    return found;
exception
    when others then
        return false;
end;
$$;

comment on function market.extend_session(bytea, timestamptz, timestamptz) is
    'Internal: move a live session''s expiry, unless that would wait or fail; whether it was moved.';
