-- count_tasks: the statistics of users follow the tasks, whoever changes them.
--
-- After every INSERT, UPDATE and DELETE of tasks (those included that cascade from
-- a user), and before a TRUNCATE: what changed for each poster and taker is added
-- to market.user_statistics_deltas, one row a user and statement. What a row
-- counted before is taken off and what it counts now is added, so it makes no
-- difference which column changed, and the two transition tables need not be
-- joined. Rows are only added: two who change tasks of one user don't wait for
-- each other (docs/decisions/0043). What the numbers mean is said once, in
-- market.user_statistics_recount; here it is said as a difference.

create or replace function market.count_tasks()
    returns trigger
    language plpgsql
    volatile
    security definer  -- whoever may change a task needs no right on the statistics
    set search_path = pg_catalog, pg_temp
    set jit = off
as $$
begin
    if tg_op = 'INSERT' then
        insert into market.user_statistics_deltas (user_id, tasks_posted, tasks_taken, tasks_completed, tasks_cancelled)
        select c.user_id, sum(c.posted), sum(c.taken), sum(c.completed), sum(c.cancelled)
          from (select a.poster_id as user_id, 1 as posted, 0 as taken, 0 as completed,
                       (a.status = 'cancelled')::integer as cancelled
                  from after_tasks as a
                union all
                select a.taker_id, 0, 1, (a.status = 'completed')::integer, 0
                  from after_tasks as a
                 where a.taker_id is not null) as c
         group by c.user_id;
    elsif tg_op = 'UPDATE' then
        insert into market.user_statistics_deltas (user_id, tasks_posted, tasks_taken, tasks_completed, tasks_cancelled)
        select c.user_id, sum(c.posted), sum(c.taken), sum(c.completed), sum(c.cancelled)
          from (select a.poster_id as user_id, 1 as posted, 0 as taken, 0 as completed,
                       (a.status = 'cancelled')::integer as cancelled
                  from after_tasks as a
                union all
                select a.taker_id, 0, 1, (a.status = 'completed')::integer, 0
                  from after_tasks as a
                 where a.taker_id is not null
                union all
                select b.poster_id, -1, 0, 0, -(b.status = 'cancelled')::integer
                  from before_tasks as b
                union all
                select b.taker_id, 0, -1, -(b.status = 'completed')::integer, 0
                  from before_tasks as b
                 where b.taker_id is not null) as c
         group by c.user_id
        having (sum(c.posted), sum(c.taken), sum(c.completed), sum(c.cancelled)) <> (0, 0, 0, 0);
    elsif tg_op = 'DELETE' then
        insert into market.user_statistics_deltas (user_id, tasks_posted, tasks_taken, tasks_completed, tasks_cancelled)
        select c.user_id, -sum(c.posted), -sum(c.taken), -sum(c.completed), -sum(c.cancelled)
          from (select b.poster_id as user_id, 1 as posted, 0 as taken, 0 as completed,
                       (b.status = 'cancelled')::integer as cancelled
                  from before_tasks as b
                union all
                select b.taker_id, 0, 1, (b.status = 'completed')::integer, 0
                  from before_tasks as b
                 where b.taker_id is not null) as c
         group by c.user_id;
    else
        insert into market.user_statistics_deltas (user_id, tasks_posted, tasks_taken, tasks_completed, tasks_cancelled)
        select r.user_id, -r.tasks_posted, -r.tasks_taken, -r.tasks_completed, -r.tasks_cancelled
          from market.user_statistics_recount as r
         where (r.tasks_posted, r.tasks_taken) <> (0, 0);
    end if;

    return null;
end;
$$;

comment on function market.count_tasks() is
    'Trigger: note what a change of tasks means for the statistics of posters and takers.';

create or replace trigger count_tasks_insert
    after insert on market.tasks
    referencing new table as after_tasks
    for each statement
    execute function market.count_tasks();

create or replace trigger count_tasks_update
    after update on market.tasks
    referencing old table as before_tasks new table as after_tasks
    for each statement
    execute function market.count_tasks();

create or replace trigger count_tasks_delete
    after delete on market.tasks
    referencing old table as before_tasks
    for each statement
    execute function market.count_tasks();

create or replace trigger count_tasks_truncate
    before truncate on market.tasks
    for each statement
    execute function market.count_tasks();

comment on trigger count_tasks_insert on market.tasks is 'New tasks are counted.';
comment on trigger count_tasks_update on market.tasks is 'Tasks that end, or change hands, are counted anew.';
comment on trigger count_tasks_delete on market.tasks is 'Deleted tasks are counted no more.';
comment on trigger count_tasks_truncate on market.tasks is 'TRUNCATE takes off what all tasks counted.';
