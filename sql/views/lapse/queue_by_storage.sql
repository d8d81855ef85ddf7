-- lapse.queue_by_storage: the file queue storage by storage, and who deletes from each.
--
-- Every storage that was served once, and the first 1,000 that have rows in the queue. Looking must stay cheap while millions
-- of rows wait, so it jumps from storage to storage through the index of due rows and looks at the first
-- 10,000 rows of each in due order; where there are more, counts_are_minimum says so. Rows in
-- trouble and rows at work are among the first due.

create or replace view lapse.queue_by_storage as
with recursive queued (name) as (
    (select q.storage from lapse.file_cleanup_queue as q where q.dead_at is null order by q.storage limit 1)
    union all
    select (select q.storage
              from lapse.file_cleanup_queue as q
             where q.dead_at is null and q.storage > k.name
             order by q.storage
             limit 1)
      from queued as k
     where k.name is not null
)
select n.name as storage, o.pending, o.due, o.leased, o.retrying, o.oldest_due_age, w.workers, s.first_served_at,
       s.last_served_at, o.pending > 10000 as counts_are_minimum
  from ((select k.name from queued as k where k.name is not null limit 1000)
        union
        select s.name from lapse.storage as s) as n
  left join lapse.storage as s on s.name = n.name
 cross join lateral (
       select count(*) as workers
         from lapse.worker as w cross join lapse.setting as e
        where n.name = any (w.storages)
          and w.last_seen_at > clock_timestamp() - greatest(interval '1 minute', 2 * e.notify_horizon)) as w
 cross join lateral (
       select count(*) as pending,
              count(*) filter (where q.not_before <= statement_timestamp() and not q.is_leased) as due,
              count(*) filter (where q.is_leased) as leased,
              count(*) filter (where q.attempts > 0 and not q.is_leased) as retrying,
              statement_timestamp()
                  - min(q.not_before) filter (where q.not_before <= statement_timestamp() and not q.is_leased
                                                and q.not_before > '-infinity') as oldest_due_age
         from (select q.not_before, q.attempts, coalesce(q.leased_until > statement_timestamp(), false) as is_leased
                 from lapse.file_cleanup_queue as q
                where q.dead_at is null and q.storage = n.name
                order by q.not_before, q.id
                limit 10001) as q) as o;

comment on view lapse.queue_by_storage is
    'The file queue storage by storage. Counts stop at 10,000 rows of each, as counts_are_minimum says.';
comment on column lapse.queue_by_storage.storage is 'Name of the storage.';
comment on column lapse.queue_by_storage.pending is 'Its rows that are not dead: waiting for their time, due, leased or retrying.';
comment on column lapse.queue_by_storage.due is 'Rows due now that no worker holds.';
comment on column lapse.queue_by_storage.leased is 'Rows that a worker holds.';
comment on column lapse.queue_by_storage.retrying is 'Rows that failed before and are not leased now.';
comment on column lapse.queue_by_storage.oldest_due_age is 'How long the oldest due row has waited past its time.';
comment on column lapse.queue_by_storage.workers is 'Living workers that serve it: with none, nothing of it is deleted.';
comment on column lapse.queue_by_storage.first_served_at is 'When a worker first said that it serves it; NULL: none ever did.';
comment on column lapse.queue_by_storage.last_served_at is 'When a worker last said so, to a minute or so.';
comment on column lapse.queue_by_storage.counts_are_minimum is 'True where there was more than was looked at: read "at least".';
