-- market.expire_points: one batch of policy expire_points; what is left of lapsed grants leaves the balance.
--
-- In: at most p_limit grants, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and changed, and the due
-- time reached. Raises nothing of its own; trigger keep_ledger writes the
-- entries and takes the points off the balances, in this statement.
--
-- Lock order: the user's balance, then the grant, as spend_points has it, and
-- both with skip locked: this never waits, so it can't be part of a deadlock.
-- The balance is locked in a lateral subquery, which the planner can't turn
-- into a hash join that would read every balance.

create or replace function market.expire_points(
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
        select g.id, g.expires_at
          from market.point_grants as g
         cross join lateral (select
                               from market.point_balances as b
                              where b.user_id = g.user_id
                                for update skip locked) as balance
         where g.remaining > 0
           and g.expires_at >= p_after
           and g.expires_at <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'expire_points'
                              and b.key = g.id::text
                              and b.retry_at > p_cutoff)
         order by g.expires_at, g.id
         limit p_limit
           for update of g skip locked
    ),
    expired as (
        update market.point_grants as g
           set remaining = 0, expired_at = now()
          from due as d
         where g.id = d.id
        returning 1
    )
    select (select count(*) from due)::integer,
           (select count(*) from expired)::integer,
           (select max(d.expires_at) from due as d)
$$;

comment on function market.expire_points(integer, timestamptz, timestamptz) is
    'Step of policy expire_points: at most p_limit lapsed grants lose what is left of them, oldest first.';
