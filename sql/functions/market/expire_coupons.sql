-- market.expire_coupons: one batch of policy expire_coupons; active coupons whose time is over become expired.
--
-- In: at most p_limit rows, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and changed, and the due
-- time reached. Raises nothing of its own. A row locked elsewhere, by somebody
-- who redeems it now, is skipped and met again by the next run. The state is a
-- literal and the range names the due column alone, so that coupons_due serves
-- it under any plan, and rows that are due later are never read. The update
-- names the key alone, since the rows are locked and so stay as they were found:
-- with the state repeated, a planner that believes coupons_due to be empty, as it
-- was at the last vacuum, would walk all of it for each row.

create or replace function market.expire_coupons(
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
        select c.id, c.valid_until
          from market.coupons as c
         where c.status = 'active'
           and c.valid_until >= p_after
           and c.valid_until <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'expire_coupons'
                              and b.key = c.id::text
                              and b.retry_at > p_cutoff)
         order by c.valid_until, c.id
         limit p_limit
           for update of c skip locked
    ),
    expired as (
        update market.coupons as c
           set status = 'expired', expired_at = now()
          from due as d
         where c.id = d.id
        returning 1
    )
    select (select count(*) from due)::integer,
           (select count(*) from expired)::integer,
           (select max(d.valid_until) from due as d)
$$;

comment on function market.expire_coupons(integer, timestamptz, timestamptz) is
    'Step of policy expire_coupons: at most p_limit lapsed coupons become expired, oldest first.';
