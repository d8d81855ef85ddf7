-- market.refresh_expert_statistics: one batch of policy refresh_expert_statistics; experts who changed are worked out anew.
--
-- In: at most p_limit changes, made at p_cutoff or before, starting at p_after
-- (inclusive), oldest first. Out: rows picked and settled, and the time reached.
-- Raises nothing of its own. First the statistics of users are folded, which marks
-- the experts among them. All marks of an expert are settled at once.
--
-- Marks are deleted and numbers worked out by one statement, which sees one
-- state of the database: with a mark it sees the change that it stands for, and
-- the mark of a change that commits later is not among those deleted. The experts
-- are locked, so that one who is just being removed is waited for, and left out.

create or replace function market.refresh_expert_statistics(
    p_limit  integer,
    p_cutoff timestamptz,
    p_after  timestamptz
)
    returns lapse.progress
    language plpgsql
    volatile
    security definer
    set search_path = pg_catalog, pg_temp
    set jit = off
as $$
declare
    v_progress lapse.progress;
begin
    perform market.fold_user_statistics(10000, p_cutoff, '-infinity');

    with due as materialized (
        select c.changed_at, c.id, c.expert_id
          from market.expert_changes as c
         where c.changed_at >= p_after
           and c.changed_at <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'refresh_expert_statistics'
                              and b.key = c.id::text
                              and b.retry_at > p_cutoff)
         order by c.changed_at, c.id
         limit p_limit
           for update of c skip locked
    ),
    settled as (
        delete from market.expert_changes as c
         using (select distinct d.expert_id from due as d) as d
         where c.expert_id = d.expert_id
        returning c.changed_at, c.id, c.expert_id
    ),
    refreshed as (
        insert into market.expert_statistics as s
               (user_id, median_response, response_rate, completion_rate, average_rating, refreshed_at)
        select e.user_id, i.median_response, i.response_rate, u.completion_rate, u.average_rating, now()
          from (select distinct s.expert_id from settled as s) as c
         cross join lateral (select e.user_id
                               from market.experts as e
                              where e.user_id = c.expert_id
                                for key share) as e
         cross join lateral (
               select percentile_cont(0.5) within group (order by i.responded_at - i.invited_at) as median_response,
                      count(i.responded_at)::numeric / nullif(count(*), 0) as response_rate
                 from market.expert_invitations as i
                where i.expert_id = e.user_id) as i
          left join lateral (
               select u.tasks_completed::numeric / nullif(u.tasks_taken, 0) as completion_rate,
                      u.rating_sum::numeric / nullif(u.reviews, 0) as average_rating
                 from market.user_statistics as u
                where u.user_id = e.user_id
               offset 0) as u on true
         order by e.user_id
        on conflict (user_id) do update
           set median_response = excluded.median_response,
               response_rate   = excluded.response_rate,
               completion_rate = excluded.completion_rate,
               average_rating  = excluded.average_rating,
               refreshed_at    = excluded.refreshed_at
    )
    select (select count(*) from due)::integer,
           (select count(*) from due as d join settled as s on s.changed_at = d.changed_at and s.id = d.id)::integer,
           (select max(d.changed_at) from due as d)
      into v_progress.picked, v_progress.handled, v_progress.reached;

    return v_progress;
end;
$$;

comment on function market.refresh_expert_statistics(integer, timestamptz, timestamptz) is
    'Step of policy refresh_expert_statistics: work out anew the experts of at most p_limit changes, oldest first.';
