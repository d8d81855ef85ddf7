-- market.open_tasks: tasks that can be taken: open, and their deadline has not passed.
--
-- Whether or not policy cancel_expired_tasks has been. Each condition that one
-- adds reaches the table's indexes; without any, tasks_due leads to those that are
-- left.

create or replace view market.open_tasks as
    select t.id, t.poster_id, t.title, t.deadline, t.created_at
      from market.tasks as t
     where t.status = 'open'
       and (t.deadline > now() or t.deadline is null);

comment on view market.open_tasks is 'Open tasks whose deadline has not passed, swept or not.';
comment on column market.open_tasks.id is 'Number of the task.';
comment on column market.open_tasks.poster_id is 'Who posted it.';
comment on column market.open_tasks.title is 'What is to be done.';
comment on column market.open_tasks.deadline is 'Lapses at this time if nobody took it by then; NULL: never.';
comment on column market.open_tasks.created_at is 'When it was posted.';
