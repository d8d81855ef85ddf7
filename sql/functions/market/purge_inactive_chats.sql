-- market.purge_inactive_chats: one batch of policy purge_inactive_chats; chats in which nothing happened for 30 days go.
--
-- In: at most p_limit rows, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and deleted, and the due
-- time reached. Raises nothing of its own. Messages go by their foreign key. A
-- chat that somebody writes in now is locked, and skipped. See
-- market.expire_coupons for the shape.

create or replace function market.purge_inactive_chats(
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
        select c.id, c.purge_at
          from market.chats as c
         where c.purge_at >= p_after
           and c.purge_at <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'purge_inactive_chats'
                              and b.key = c.id::text
                              and b.retry_at > p_cutoff)
         order by c.purge_at, c.id
         limit p_limit
           for update of c skip locked
    ),
    gone as (
        delete from market.chats as c
         using due as d
         where c.id = d.id
        returning 1
    )
    select (select count(*) from due)::integer,
           (select count(*) from gone)::integer,
           (select max(d.purge_at) from due as d)
$$;

comment on function market.purge_inactive_chats(integer, timestamptz, timestamptz) is
    'Step of policy purge_inactive_chats: delete at most p_limit chats without activity for 30 days, oldest first.';
