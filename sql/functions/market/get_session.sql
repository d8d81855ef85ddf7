-- market.get_session: whose session is this?
--
-- In: the token's hash, whether this read keeps a sliding session alive (polling
-- by a page that nobody looks at should not), and the time. Out: the session, or
-- no row when there is none or it has lapsed, whether or not the sweep has been.
-- Raises LP108 for NULL given, and nothing else of its own: what a read does
-- besides reading (market.forget_session, market.extend_session) it does only
-- where it neither waits nor can fail it.
--
-- A sliding session is moved when that gains a minute or more, so at most once a
-- minute: it lapses between its idle timeout and a minute less after the last
-- read, and all other reads write nothing. Never beyond its end, and never back
-- to life. Without a scan under any plan, also one made while the table was empty.

create or replace function market.get_session(
    p_token_hash bytea,
    p_touch      boolean     default true,
    p_now        timestamptz default now()
)
    returns table (principal_kind text, principal_id bigint, data jsonb, created_at timestamptz, expires_at timestamptz)
    language plpgsql
    volatile
    rows 1
    security definer
    set search_path = pg_catalog, pg_temp
    set enable_seqscan = off
    set jit = off
as $$
declare
    v_session market.sessions;
    v_until   timestamptz;
begin
    if num_nulls(p_token_hash, p_touch, p_now) > 0 then
        raise exception 'get_session was given NULL'
            using errcode = 'LP108', hint = 'Give a token''s hash, whether to touch, and a time.';
    end if;

    select s.* into v_session from market.sessions as s where s.token_hash = p_token_hash;
    if not found then
        return;
    elsif v_session.expires_at <= p_now then
        perform market.forget_session(p_token_hash, p_now);
        return;
    end if;

    if p_touch and v_session.idle_timeout is not null then
        v_until := least(p_now + make_interval(secs => extract(epoch from v_session.idle_timeout)), v_session.ends_at);
        if v_until >= v_session.expires_at + interval '1 minute'
           and market.extend_session(p_token_hash, v_until, p_now) then
            v_session.expires_at := v_until;
        end if;
    end if;

    return query
    select v_session.principal_kind, v_session.principal_id, v_session.data, v_session.created_at,
           v_session.expires_at;
end;
$$;

comment on function market.get_session(bytea, boolean, timestamptz) is
    'The session of a token, or no row when there is none or it has lapsed; keeps a sliding one alive.';
