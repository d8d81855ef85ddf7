-- market.spend_points: take points from a user, all of them or none.
--
-- In: the user, how many, and the time. Out: what the user can still spend.
-- Earliest expiry first; points that have lapsed are never touched, whether or
-- not the sweep has been. Raises LP101 unknown user, LP106 not enough, LP108 an
-- amount that is not positive or NULL given.
--
-- Lock order: the user's balance, then the grants in order of expiry. The
-- balance is what makes two who spend at once take turns; expire_points skips
-- a user who is spending.

create or replace function market.spend_points(
    p_user_id bigint,
    p_amount  integer,
    p_now     timestamptz default now()
)
    returns bigint
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_available bigint;
begin
    if num_nulls(p_user_id, p_amount, p_now) > 0 then
        raise exception 'spend_points was given NULL'
            using errcode = 'LP108', hint = 'Give a user, an amount and a time.';
    elsif p_amount <= 0 then
        raise exception 'can''t spend % points', p_amount
            using errcode = 'LP108', hint = 'Give a positive amount; market.grant_points gives points.';
    end if;

    perform from market.point_balances as b where b.user_id = p_user_id for update;

    -- Also raises LP101. A new snapshot: it sees what those did who held the lock before.
    v_available := market.point_balance(p_user_id, p_now);
    if v_available < p_amount then
        raise exception 'user % can''t spend % points', p_user_id, p_amount
            using errcode = 'LP106',
                  detail = format('There are %s points that have not lapsed.', v_available),
                  hint = 'Spend less, or grant points first.';
    end if;

    with spendable as materialized (
        select g.id, g.remaining, g.expires_at
          from market.point_grants as g
         where g.user_id = p_user_id
           and g.remaining > 0
           and (g.expires_at is null or g.expires_at > p_now)
         order by g.expires_at, g.id
           for no key update
    ),
    taken as (
        select s.id,
               least(s.remaining,
                     p_amount - (sum(s.remaining) over (order by s.expires_at, s.id) - s.remaining)) as points
          from spendable as s
    )
    update market.point_grants as g
       set remaining = g.remaining - t.points::integer
      from taken as t
     where g.id = t.id
       and t.points > 0;

    return v_available - p_amount;
end;
$$;

comment on function market.spend_points(bigint, integer, timestamptz) is
    'Take points, earliest expiry first, never lapsed ones, all or nothing; returns what is left to spend. LP101 unknown user, LP106 not enough.';
