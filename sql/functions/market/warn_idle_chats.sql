-- market.warn_idle_chats: one batch of policy warn_idle_chats; chats idle for a minute are marked as warned.
--
-- In: at most p_limit rows, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and changed, and the due
-- time reached. Raises nothing of its own. Once an idle period: a warned chat is
-- due no more until somebody writes, which clears warned_at (note_chat_activity,
-- stamp_chat). Trigger settle_chats tells of it. A chat in which somebody writes
-- now is locked, and skipped. See market.expire_coupons for the shape.

create or replace function market.warn_idle_chats(
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
        select c.id, c.warn_at
          from market.chats as c
         where c.status = 'active'
           and c.warned_at is null
           and c.warn_at >= p_after
           and c.warn_at <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'warn_idle_chats'
                              and b.key = c.id::text
                              and b.retry_at > p_cutoff)
         order by c.warn_at, c.id
         limit p_limit
           for update of c skip locked
    ),
    warned as (
        update market.chats as c
           set warned_at = greatest(p_cutoff, now())
          from due as d
         where c.id = d.id
        returning 1
    )
    select (select count(*) from due)::integer,
           (select count(*) from warned)::integer,
           (select max(d.warn_at) from due as d)
$$;

comment on function market.warn_idle_chats(integer, timestamptz, timestamptz) is
    'Step of policy warn_idle_chats: warn in at most p_limit chats idle for a minute, longest idle first.';
