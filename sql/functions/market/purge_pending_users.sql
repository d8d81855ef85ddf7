-- market.purge_pending_users: one batch of policy purge_pending_users; lapsed sign-ups that were never verified go.
--
-- In: at most p_limit rows, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and deleted, and the due
-- time reached. Raises nothing of its own. A row locked elsewhere, by somebody
-- who verifies it now, is skipped; once verified it is never due again. See
-- market.expire_coupons for the shape.

create or replace function market.purge_pending_users(
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
        select p.id, p.expires_at
          from market.pending_users as p
         where p.verified_at is null
           and p.expires_at >= p_after
           and p.expires_at <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'purge_pending_users'
                              and b.key = p.id::text
                              and b.retry_at > p_cutoff)
         order by p.expires_at, p.id
         limit p_limit
           for update of p skip locked
    ),
    gone as (
        delete from market.pending_users as p
         using due as d
         where p.id = d.id
        returning 1
    )
    select (select count(*) from due)::integer,
           (select count(*) from gone)::integer,
           (select max(d.expires_at) from due as d)
$$;

comment on function market.purge_pending_users(integer, timestamptz, timestamptz) is
    'Step of policy purge_pending_users: delete at most p_limit lapsed, unverified sign-ups, oldest first.';
