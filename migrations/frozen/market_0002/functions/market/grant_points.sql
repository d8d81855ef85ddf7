-- market.grant_points: give a user points.
--
-- In: the user, how many, when they lapse (NULL: never), and the time. Out: the
-- grant's id. Raises LP101 unknown user, LP108 an amount that is not positive,
-- an expiry that is not in the future, or NULL given. Trigger keep_ledger
-- writes the entry and the balance.

create or replace function market.grant_points(
    p_user_id    bigint,
    p_amount     integer,
    p_expires_at timestamptz default null,
    p_now        timestamptz default now()
)
    returns bigint
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_grant_id bigint;
begin
    if num_nulls(p_user_id, p_amount, p_now) > 0 then
        raise exception 'grant_points was given NULL'
            using errcode = 'LP108', hint = 'Give a user, an amount and a time; only the expiry may be NULL, for never.';
    elsif p_amount <= 0 then
        raise exception 'can''t grant % points', p_amount
            using errcode = 'LP108', hint = 'Give a positive amount; market.spend_points takes points away.';
    elsif p_expires_at <= p_now then
        raise exception 'can''t grant points that lapsed at %', p_expires_at
            using errcode = 'LP108', hint = 'Give an expiry in the future, or NULL for never.';
    end if;

    perform from market.users as u where u.id = p_user_id for key share;
    if not found then
        raise exception 'user % is unknown', p_user_id
            using errcode = 'LP101', hint = 'Look in market.users.';
    end if;

    insert into market.point_grants (user_id, amount, remaining, granted_at, expires_at)
    values (p_user_id, p_amount, p_amount, p_now, p_expires_at)
    returning id into v_grant_id;

    return v_grant_id;
end;
$$;

comment on function market.grant_points(bigint, integer, timestamptz, timestamptz) is
    'Give a user points that lapse at p_expires_at (NULL: never); returns the grant''s id. LP101 unknown user, LP108 bad amount or expiry.';
