-- market.expire_invitation_codes: one batch of policy expire_invitation_codes; active codes whose time is over become expired.
--
-- In: at most p_limit rows, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and changed, and the due
-- time reached. Raises nothing of its own. A row locked elsewhere, by somebody
-- who uses it now, is skipped and met again by the next run. Exhausted codes
-- stay exhausted. See market.expire_coupons for the shape.

create or replace function market.expire_invitation_codes(
    p_limit  integer,
    p_cutoff timestamptz,
    p_after  timestamptz
)
    returns lapse.progress
    language sql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
as $$
    with due as materialized (
        select i.id, i.valid_until
          from market.invitation_codes as i
         where i.status = 'active'
           and i.valid_until >= p_after
           and i.valid_until <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'expire_invitation_codes'
                              and b.key = i.id::text
                              and b.retry_at > p_cutoff)
         order by i.valid_until, i.id
         limit p_limit
           for update of i skip locked
    ),
    expired as (
        update market.invitation_codes as i
           set status = 'expired', expired_at = now()
          from due as d
         where i.id = d.id
        returning 1
    )
    select (select count(*) from due)::integer,
           (select count(*) from expired)::integer,
           (select max(d.valid_until) from due as d)
$$;

comment on function market.expire_invitation_codes(integer, timestamptz, timestamptz) is
    'Step of policy expire_invitation_codes: at most p_limit lapsed codes become expired, oldest first.';
