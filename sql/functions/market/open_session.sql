-- market.open_session: somebody has logged in.
--
-- In: the hash of the token that the client will show; whose session it is; when
-- it lapses (NULL: one idle timeout from now); what to keep with it; for a session
-- that slides, after how long without a read it lapses, and the time that no read
-- moves it beyond; and the time. Out: when it lapses. Raises LP121 when this token
-- has a session that has not lapsed, LP108 for an unknown kind, an expiry that is
-- not in the future, a token or a timeout out of range, or NULL given. A lapsed
-- session of the same token is replaced, unless it is held (lapse.hold): LP121. Intervals are added as seconds: a day
-- in an interval has 23 or 25 hours in a session whose time zone changes its clocks.

create or replace function market.open_session(
    p_token_hash     bytea,
    p_principal_kind text,
    p_principal_id   bigint,
    p_expires_at     timestamptz default null,
    p_data           jsonb       default '{}',
    p_idle_timeout   interval    default null,
    p_ends_at        timestamptz default null,
    p_now            timestamptz default now()
)
    returns timestamptz
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
    if num_nulls(p_token_hash, p_principal_kind, p_principal_id, p_data, p_now) > 0
       or num_nulls(p_expires_at, p_idle_timeout) = 2 then
        raise exception 'open_session was given NULL'
            using errcode = 'LP108',
                  hint = 'Give a token''s hash, whose session it is, an expiry or an idle timeout, and a time; only the end may be NULL as well.';
    elsif p_principal_kind not in ('user', 'agent', 'admin') then
        raise exception 'there are no sessions of kind "%"', left(p_principal_kind, 100)
            using errcode = 'LP108', hint = 'Use user, agent or admin.';
    elsif octet_length(p_token_hash) not between 1 and 128 then
        raise exception 'a token''s hash can''t have % bytes', octet_length(p_token_hash)
            using errcode = 'LP108', hint = 'Give 1 to 128 bytes, such as the 32 of sha256(token).';
    elsif p_idle_timeout not between interval '2 minutes' and interval '366 days' then
        raise exception 'a session can''t have an idle timeout of %', p_idle_timeout
            using errcode = 'LP108', hint = 'Use 2 minutes to 366 days: a session slides once a minute at most.';
    end if;

    v_expires_at := least(coalesce(p_expires_at, p_now + make_interval(secs => extract(epoch from p_idle_timeout))),
                          p_ends_at);
    if v_expires_at <= p_now then
        raise exception 'can''t open a session that lapsed at %', v_expires_at
            using errcode = 'LP108', hint = 'Give an expiry, and an end if any, in the future.';
    end if;

    insert into market.sessions as s
           (token_hash, principal_kind, principal_id, data, created_at, expires_at, idle_timeout, ends_at)
    values (p_token_hash, p_principal_kind, p_principal_id, p_data, p_now, v_expires_at, p_idle_timeout, p_ends_at)
    on conflict (token_hash) do update
       set principal_kind = excluded.principal_kind,
           principal_id   = excluded.principal_id,
           data           = excluded.data,
           created_at     = excluded.created_at,
           expires_at     = excluded.expires_at,
           idle_timeout   = excluded.idle_timeout,
           ends_at        = excluded.ends_at
     where s.expires_at <= p_now
       and p_token_hash::text not in (select lapse.held_keys('market.sessions'));
    if not found then
        raise exception 'this token has a session already'
            using errcode = 'LP121', hint = 'Make a new token, at random; or market.end_session ends the other one first.';
    end if;

    return v_expires_at;
end;
$$;

comment on function market.open_session(
    bytea, text, bigint, timestamptz, jsonb, interval, timestamptz, timestamptz) is
    'Open a session; returns when it lapses. LP108 bad kind, token, expiry or timeout, LP121 the token has a session.';
