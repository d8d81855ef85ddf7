-- market.prune_chat_events: one batch of policy prune_chat_events; events that were kept for a week go.
--
-- In: at most p_limit rows, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and deleted, and the due
-- time reached. Raises nothing of its own. See market.expire_coupons for the shape.

create or replace function market.prune_chat_events(
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
        select e.id, e.expires_at
          from market.chat_events as e
         where e.expires_at >= p_after
           and e.expires_at <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'prune_chat_events'
                              and b.key = e.id::text
                              and b.retry_at > p_cutoff)
         order by e.expires_at, e.id
         limit p_limit
           for update of e skip locked
    ),
    gone as (
        delete from market.chat_events as e
         using due as d
         where e.id = d.id
        returning 1
    )
    select (select count(*) from due)::integer,
           (select count(*) from gone)::integer,
           (select max(d.expires_at) from due as d)
$$;

comment on function market.prune_chat_events(integer, timestamptz, timestamptz) is
    'Step of policy prune_chat_events: delete at most p_limit events older than a week, oldest first.';
