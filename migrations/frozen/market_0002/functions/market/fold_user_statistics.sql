-- market.fold_user_statistics: one batch of policy fold_user_statistics; changes of the statistics are added up.
--
-- In: at most p_limit changes, made at p_cutoff or before, starting at p_after
-- (inclusive), oldest first. Out: rows picked and folded, and the time reached.
-- Raises nothing of its own. market.user_statistics says the same before and
-- after: this only keeps it cheap to read. Of the users concerned, those who are
-- experts are marked for refresh_expert_statistics: every change of a user's
-- numbers comes by here, also one that committed while the user became an expert.
--
-- One session folds at a time, refresh_expert_statistics included; another one
-- finds nothing to do. So no two wait for each other's users. A row that has come
-- to nothing goes: nobody else would take the row of a user who is gone.

create or replace function market.fold_user_statistics(
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
    v_users    bigint[];
begin
    if not pg_try_advisory_xact_lock(1835102827, hashtext('fold_user_statistics')) then
        return (0, 0, null)::lapse.progress;
    end if;

    with due as materialized (
        select d.changed_at, d.id
          from market.user_statistics_deltas as d
         where d.changed_at >= p_after
           and d.changed_at <= p_cutoff
           and not exists (select from lapse.blocked_row as b
                            where b.policy = 'fold_user_statistics'
                              and b.key = d.id::text
                              and b.retry_at > p_cutoff)
         order by d.changed_at, d.id
         limit p_limit
           for update of d skip locked
    ),
    gone as (
        delete from market.user_statistics_deltas as d
         using due as u
         where d.changed_at = u.changed_at
           and d.id = u.id
        returning d.*
    ),
    folded as (
        insert into market.user_statistics_folded as f
               (user_id, tasks_posted, tasks_taken, tasks_completed, tasks_cancelled, reviews, rating_sum, updated_at)
        select g.user_id, sum(g.tasks_posted), sum(g.tasks_taken), sum(g.tasks_completed), sum(g.tasks_cancelled),
               sum(g.reviews), sum(g.rating_sum), max(g.changed_at)
          from gone as g
         group by g.user_id
         order by g.user_id
        on conflict (user_id) do update
           set tasks_posted    = f.tasks_posted + excluded.tasks_posted,
               tasks_taken     = f.tasks_taken + excluded.tasks_taken,
               tasks_completed = f.tasks_completed + excluded.tasks_completed,
               tasks_cancelled = f.tasks_cancelled + excluded.tasks_cancelled,
               reviews         = f.reviews + excluded.reviews,
               rating_sum      = f.rating_sum + excluded.rating_sum,
               updated_at      = greatest(f.updated_at, excluded.updated_at)
        returning f.user_id, f.updated_at,
                  (f.tasks_posted, f.tasks_taken, f.tasks_completed, f.tasks_cancelled, f.reviews, f.rating_sum)
                      = (0, 0, 0, 0, 0, 0) as is_empty
    ),
    marked as (
        insert into market.expert_changes (expert_id, changed_at)
        select f.user_id, least(f.updated_at, p_cutoff)
          from folded as f
         where exists (select from market.experts as e where e.user_id = f.user_id)
    )
    select (select count(*) from due)::integer,
           (select count(*) from gone)::integer,
           (select max(d.changed_at) from due as d),
           (select array_agg(f.user_id) from folded as f where f.is_empty)
      into v_progress.picked, v_progress.handled, v_progress.reached, v_users;

    delete from market.user_statistics_folded as f
     where f.user_id = any (v_users);

    return v_progress;
end;
$$;

comment on function market.fold_user_statistics(integer, timestamptz, timestamptz) is
    'Step of policy fold_user_statistics: add up at most p_limit changes of the statistics, oldest first.';
