-- market.user_statistics: how many tasks and reviews each user has, as of now.
--
-- One row for each user of whom there is something to count. What was folded
-- is added to what changed since, so the numbers are those of this very moment:
-- a change and what it adds become visible with the same commit. A condition on
-- user_id reaches the indexes of both parts.

create or replace view market.user_statistics as
    select s.user_id,
           sum(s.tasks_posted)::bigint    as tasks_posted,
           sum(s.tasks_taken)::bigint     as tasks_taken,
           sum(s.tasks_completed)::bigint as tasks_completed,
           sum(s.tasks_cancelled)::bigint as tasks_cancelled,
           sum(s.reviews)::bigint         as reviews,
           sum(s.rating_sum)::bigint      as rating_sum,
           max(s.updated_at)              as updated_at
      from (select f.user_id, f.tasks_posted, f.tasks_taken, f.tasks_completed, f.tasks_cancelled, f.reviews,
                   f.rating_sum, f.updated_at
              from market.user_statistics_folded as f
            union all
            select d.user_id, d.tasks_posted, d.tasks_taken, d.tasks_completed, d.tasks_cancelled, d.reviews,
                   d.rating_sum, d.changed_at
              from market.user_statistics_deltas as d) as s
     group by s.user_id
    having (sum(s.tasks_posted), sum(s.tasks_taken), sum(s.tasks_completed), sum(s.tasks_cancelled), sum(s.reviews),
            sum(s.rating_sum)) <> (0, 0, 0, 0, 0, 0);

comment on view market.user_statistics is
    'How many tasks and reviews each user has: always what counting them would give. No row: nothing to count.';
comment on column market.user_statistics.user_id is 'The user.';
comment on column market.user_statistics.tasks_posted is 'Tasks that the user posted.';
comment on column market.user_statistics.tasks_taken is 'Tasks that the user took, whatever became of them.';
comment on column market.user_statistics.tasks_completed is 'Tasks that the user took and that are completed.';
comment on column market.user_statistics.tasks_cancelled is 'Tasks that the user posted and that are cancelled, lapsed ones included.';
comment on column market.user_statistics.reviews is 'Reviews of the user.';
comment on column market.user_statistics.rating_sum is 'Sum of their ratings: divided by reviews, the average.';
comment on column market.user_statistics.updated_at is 'Time of the last change in these numbers.';
