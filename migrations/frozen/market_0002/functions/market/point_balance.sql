-- market.point_balance: what a user can spend now.
--
-- In: the user and the time. Out: the points that have not lapsed, which may be
-- less than market.point_balances says until the sweep has been. Raises LP101
-- unknown user, LP108 NULL given.

create or replace function market.point_balance(
    p_user_id bigint,
    p_now     timestamptz default now()
)
    returns bigint
    language plpgsql
    stable
    security definer
    set search_path = pg_catalog, pg_temp
as $$
begin
    if num_nulls(p_user_id, p_now) > 0 then
        raise exception 'point_balance was given NULL'
            using errcode = 'LP108', hint = 'Give a user and a time.';
    elsif not exists (select from market.users as u where u.id = p_user_id) then
        raise exception 'user % is unknown', p_user_id
            using errcode = 'LP101', hint = 'Look in market.users.';
    end if;

    return (select coalesce(sum(g.remaining), 0)
              from market.point_grants as g
             where g.user_id = p_user_id
               and g.remaining > 0
               and (g.expires_at is null or g.expires_at > p_now));
end;
$$;

comment on function market.point_balance(bigint, timestamptz) is
    'What a user can spend now: points that have not lapsed. LP101 unknown user.';
