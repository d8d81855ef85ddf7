-- market.use_invitation_code: take one use of an invitation.
--
-- In: the code, who uses it, and the time. Out: the code's id. Raises LP101
-- unknown code or user, LP103 all uses taken, LP102 lapsed (whether or not the
-- sweep has been), LP108 NULL given. The row is locked before it is looked at:
-- of two who want the last use, one gets LP103. The last use makes it exhausted.

create or replace function market.use_invitation_code(
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
    v_code market.invitation_codes;
begin
    if num_nulls(p_code, p_user_id, p_now) > 0 then
        raise exception 'use_invitation_code was given NULL'
            using errcode = 'LP108', hint = 'Give a code, a user and a time.';
    end if;

    perform from market.users as u where u.id = p_user_id for key share;
    if not found then
        raise exception 'user % is unknown', p_user_id
            using errcode = 'LP101', hint = 'Look in market.users.';
    end if;

    select i.* into v_code from market.invitation_codes as i where i.code = p_code for update;
    if not found then
        raise exception 'invitation code "%" is unknown', left(p_code, 100)
            using errcode = 'LP101', hint = 'Check the spelling; codes are case-sensitive.';
    elsif v_code.status = 'exhausted' or v_code.use_count >= v_code.max_uses then
        raise exception 'invitation code "%" is used up', left(p_code, 100)
            using errcode = 'LP103', hint = format('It was good for %s uses.', v_code.max_uses);
    elsif v_code.status = 'expired' or v_code.valid_until <= p_now then
        raise exception 'invitation code "%" has lapsed', left(p_code, 100)
            using errcode = 'LP102', hint = format('It was valid until %s.', v_code.valid_until);
    end if;

    update market.invitation_codes as i
       set use_count = i.use_count + 1,
           status = case when i.use_count + 1 >= i.max_uses then 'exhausted' else 'active' end
     where i.id = v_code.id;

    return v_code.id;
end;
$$;

comment on function market.use_invitation_code(text, bigint, timestamptz) is
    'Take one use of an invitation; returns its id. LP101 unknown, LP102 lapsed, LP103 used up.';
