-- market.user_statistics_recount: the statistics of users, counted from the tasks and reviews themselves.
--
-- One row for each user of whom there is something to count. This is what the
-- numbers mean; market.user_statistics says the same without counting, and
-- policy repair_user_statistics compares the two. A condition on user_id
-- reaches the indexes of all three parts.

create or replace view market.user_statistics_recount as
    select c.user_id,
           sum(c.tasks_posted)::bigint    as tasks_posted,
           sum(c.tasks_taken)::bigint     as tasks_taken,
           sum(c.tasks_completed)::bigint as tasks_completed,
           sum(c.tasks_cancelled)::bigint as tasks_cancelled,
           sum(c.reviews)::bigint         as reviews,
           sum(c.rating_sum)::bigint      as rating_sum
      from (select t.poster_id as user_id, 1 as tasks_posted, 0 as tasks_taken, 0 as tasks_completed,
                   (t.status = 'cancelled')::integer as tasks_cancelled, 0 as reviews, 0 as rating_sum
              from market.tasks as t
            union all
            select t.taker_id, 0, 1, (t.status = 'completed')::integer, 0, 0, 0
              from market.tasks as t
             where t.taker_id is not null
            union all
            select r.subject_id, 0, 0, 0, 0, 1, r.rating
              from market.reviews as r) as c
     group by c.user_id;

comment on view market.user_statistics_recount is
    'The statistics of users counted from scratch: what market.user_statistics must equal. Slow without a condition on user_id.';
comment on column market.user_statistics_recount.user_id is 'The user.';
comment on column market.user_statistics_recount.tasks_posted is 'Tasks that the user posted.';
comment on column market.user_statistics_recount.tasks_taken is 'Tasks that the user took, whatever became of them.';
comment on column market.user_statistics_recount.tasks_completed is 'Tasks that the user took and that are completed.';
comment on column market.user_statistics_recount.tasks_cancelled is 'Tasks that the user posted and that are cancelled, lapsed ones included.';
comment on column market.user_statistics_recount.reviews is 'Reviews of the user.';
comment on column market.user_statistics_recount.rating_sum is 'Sum of their ratings.';
