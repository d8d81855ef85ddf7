-- market.expire_temp_uploads: one batch of policy expire_temp_uploads; uploads that no task took in time go.
--
-- In: at most p_limit rows, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and deleted, and the due
-- time reached. Raises nothing of its own. Trigger queue_left_uploads queues
-- their files, in this transaction. An upload locked elsewhere, by a task that
-- takes it now, is skipped and met again by the next run, if it is still there.
-- See market.expire_coupons for the shape.

create or replace function market.expire_temp_uploads(
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
        select u.id, u.expires_at
          from market.temp_uploads as u
         where u.expires_at >= p_after
           and u.expires_at <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'expire_temp_uploads'
                              and b.key = u.id::text
                              and b.retry_at > p_cutoff)
         order by u.expires_at, u.id
         limit p_limit
           for update of u skip locked
    ),
    gone as (
        delete from market.temp_uploads as u
         using due as d
         where u.id = d.id
        returning 1
    )
    select (select count(*) from due)::integer,
           (select count(*) from gone)::integer,
           (select max(d.expires_at) from due as d)
$$;

comment on function market.expire_temp_uploads(integer, timestamptz, timestamptz) is
    'Step of policy expire_temp_uploads: delete at most p_limit lapsed uploads, oldest first; their files are queued.';
