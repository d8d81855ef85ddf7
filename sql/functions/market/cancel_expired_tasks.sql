-- market.cancel_expired_tasks: one batch of policy cancel_expired_tasks; open tasks past their deadline become cancelled.
--
-- In: at most p_limit rows, due at p_cutoff or before, starting at due time
-- p_after (inclusive), oldest first. Out: rows picked and changed, and the due
-- time reached. Raises nothing of its own. Their files are queued in the same
-- transaction by trigger queue_files_of_tasks. A taken task has no deadline any
-- more: it keeps its files until it is completed or cancelled. A task locked
-- elsewhere, by somebody who takes it now or adds a file, is skipped and met
-- again by the next run. See market.expire_coupons for the shape.

create or replace function market.cancel_expired_tasks(
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
        select t.id, t.deadline
          from market.tasks as t
         where t.status = 'open'
           and t.deadline >= p_after
           and t.deadline <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'cancel_expired_tasks'
                              and b.key = t.id::text
                              and b.retry_at > p_cutoff)
         order by t.deadline, t.id
         limit p_limit
           for update of t skip locked
    ),
    cancelled as (
        update market.tasks as t
           set status = 'cancelled', cancelled_at = now(), cancel_reason = 'deadline'
          from due as d
         where t.id = d.id
        returning 1
    )
    select (select count(*) from due)::integer,
           (select count(*) from cancelled)::integer,
           (select max(d.deadline) from due as d)
$$;

comment on function market.cancel_expired_tasks(integer, timestamptz, timestamptz) is
    'Step of policy cancel_expired_tasks: at most p_limit open tasks past their deadline become cancelled, oldest first.';
