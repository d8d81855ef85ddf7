-- market.end_session: somebody has logged out.
--
-- In: the token's hash and the time. Out: whether there was a session that had
-- not lapsed; there is none afterwards either way, so logging out twice is no
-- error. Raises LP108 for NULL given. One that somebody holds (lapse.hold) lapses at this
-- moment instead of being deleted, and is as little to be had afterwards.

create or replace function market.end_session(
    p_token_hash bytea,
    p_now        timestamptz default now()
)
    returns boolean
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
    set bytea_output = 'hex'  -- as lapse.hold spells keys
as $$
declare
    v_expires_at timestamptz;
begin
    if num_nulls(p_token_hash, p_now) > 0 then
        raise exception 'end_session was given NULL'
            using errcode = 'LP108', hint = 'Give a token''s hash and a time.';
    end if;

    select s.expires_at into v_expires_at from market.sessions as s where s.token_hash = p_token_hash for update;
    if p_token_hash::text in (select lapse.held_keys('market.sessions')) then
        update market.sessions as s
           set expires_at = p_now
         where s.token_hash = p_token_hash and s.expires_at > p_now;
    else
        delete from market.sessions as s where s.token_hash = p_token_hash;
    end if;

    return coalesce(v_expires_at > p_now, false);
end;
$$;

comment on function market.end_session(bytea, timestamptz) is
    'End a session; whether there was one that had not lapsed.';
