-- market.redeem_coupon: use a coupon, once.
--
-- In: the code, who uses it, and the time. Out: the coupon's id. Raises LP101
-- unknown code or user, LP105 somebody else's, LP103 used, LP102 lapsed (whether
-- or not the sweep has been), LP104 not yet valid, LP108 NULL given. The row is
-- locked before it is looked at: of two who redeem it at once, one gets LP103.

create or replace function market.redeem_coupon(
    p_code    text,
    p_user_id bigint,
    p_now     timestamptz default now()
)
    returns bigint
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
declare
    v_coupon market.coupons;
begin
    if num_nulls(p_code, p_user_id, p_now) > 0 then
        raise exception 'redeem_coupon was given NULL'
            using errcode = 'LP108', hint = 'Give a code, a user and a time.';
    end if;

    perform from market.users as u where u.id = p_user_id for key share;
    if not found then
        raise exception 'user % is unknown', p_user_id
            using errcode = 'LP101', hint = 'Look in market.users.';
    end if;

    select c.* into v_coupon from market.coupons as c where c.code = p_code for update;
    if not found then
        raise exception 'coupon "%" is unknown', left(p_code, 100)
            using errcode = 'LP101', hint = 'Check the spelling; codes are case-sensitive.';
    elsif v_coupon.user_id <> p_user_id then
        raise exception 'coupon "%" is not yours', left(p_code, 100)
            using errcode = 'LP105', hint = 'It was given to another user, or used by one.';
    elsif v_coupon.status = 'used' then
        raise exception 'coupon "%" is used up', left(p_code, 100)
            using errcode = 'LP103', hint = format('It was used at %s.', v_coupon.used_at);
    elsif v_coupon.status = 'expired' or v_coupon.valid_until <= p_now then
        raise exception 'coupon "%" has lapsed', left(p_code, 100)
            using errcode = 'LP102', hint = format('It was valid until %s.', v_coupon.valid_until);
    elsif v_coupon.valid_from > p_now then
        raise exception 'coupon "%" is not yet valid', left(p_code, 100)
            using errcode = 'LP104', hint = format('It is valid from %s on.', v_coupon.valid_from);
    end if;

    update market.coupons as c
       set status = 'used', used_at = p_now, user_id = p_user_id
     where c.id = v_coupon.id;

    return v_coupon.id;
end;
$$;

comment on function market.redeem_coupon(text, bigint, timestamptz) is
    'Use a coupon once; returns its id. LP101 unknown, LP102 lapsed, LP103 used, LP104 not yet valid, LP105 not yours.';
