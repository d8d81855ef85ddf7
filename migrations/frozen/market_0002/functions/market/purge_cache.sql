-- market.purge_cache: one batch of policy purge_cache; lapsed cache entries go.
--
-- In: at most p_limit rows, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and deleted, and the due
-- time reached. Raises nothing of its own. A row locked elsewhere, by somebody
-- who puts a new value, is skipped. See market.expire_coupons for the shape.

create or replace function market.purge_cache(
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
        select c.key, c.expires_at
          from market.cache_entries as c
         where c.expires_at >= p_after
           and c.expires_at <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'purge_cache'
                              and b.key = c.key
                              and b.retry_at > p_cutoff)
         order by c.expires_at, c.key
         limit p_limit
           for update of c skip locked
    ),
    gone as (
        delete from market.cache_entries as c
         using due as d
         where c.key = d.key
        returning 1
    )
    select (select count(*) from due)::integer,
           (select count(*) from gone)::integer,
           (select max(d.expires_at) from due as d)
$$;

comment on function market.purge_cache(integer, timestamptz, timestamptz) is
    'Step of policy purge_cache: delete at most p_limit lapsed cache entries, oldest first.';
