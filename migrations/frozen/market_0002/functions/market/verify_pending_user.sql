-- market.verify_pending_user: turn a sign-up into a user.
--
-- In: the hash of the token in the link, and the time. Out: the new user's id.
-- Raises LP101 unknown (or purged), LP103 used already, LP102 lapsed (whether or
-- not the sweep has been), LP107 when the address has an account by now, LP108
-- NULL given. The row is locked before it is looked at, so the purge skips a
-- sign-up that is being verified.

create or replace function market.verify_pending_user(
    p_token_hash bytea,
    p_now        timestamptz default now()
)
    returns bigint
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_pending market.pending_users;
    v_user_id bigint;
begin
    if num_nulls(p_token_hash, p_now) > 0 then
        raise exception 'verify_pending_user was given NULL'
            using errcode = 'LP108', hint = 'Give the token''s hash and a time.';
    end if;

    select p.* into v_pending from market.pending_users as p where p.token_hash = p_token_hash for update;
    if not found then
        raise exception 'this sign-up is unknown'
            using errcode = 'LP101', hint = 'It may have lapsed and been purged: sign up again.';
    elsif v_pending.verified_at is not null then
        raise exception 'this sign-up is used up'
            using errcode = 'LP103', hint = format('It was verified at %s: log in.', v_pending.verified_at);
    elsif v_pending.expires_at <= p_now then
        raise exception 'this sign-up has lapsed'
            using errcode = 'LP102', hint = format('The link was valid until %s: sign up again.', v_pending.expires_at);
    end if;

    insert into market.users (email, display_name, created_at)
    values (v_pending.email, coalesce(v_pending.display_name, split_part(v_pending.email, '@', 1)), p_now)
    on conflict (email) do nothing
    returning id into v_user_id;
    if v_user_id is null then
        raise exception 'this address has an account already'
            using errcode = 'LP107', hint = 'Another sign-up with it was verified first: log in.';
    end if;

    update market.pending_users as p set verified_at = p_now where p.id = v_pending.id;

    return v_user_id;
end;
$$;

comment on function market.verify_pending_user(bytea, timestamptz) is
    'Turn a sign-up into a user; returns the user''s id. LP101 unknown, LP102 lapsed, LP103 used, LP107 the address has an account.';
