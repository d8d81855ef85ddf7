-- lapse.queue_status: the file queue at a glance, in one row.
--
-- Looking must stay cheap while millions of rows wait, so it looks at the first 10,000 rows of each
-- storage in due order (lapse.queue_by_storage), the first 10,000 dead ones and the last 100,000 entries
-- of the log; where there are more, counts_are_minimum says so.

create or replace view lapse.queue_status as
select o.pending, o.due, o.leased, o.retrying, d.dead, o.unserved, o.oldest_due_age, l.files_last_day, l.bytes_last_day,
       o.more or d.dead > 10000 or l.seen > 100000 as counts_are_minimum
  from (select coalesce(sum(s.pending), 0)::bigint as pending,
               coalesce(sum(s.due), 0)::bigint as due,
               coalesce(sum(s.leased), 0)::bigint as leased,
               coalesce(sum(s.retrying), 0)::bigint as retrying,
               coalesce(sum(s.due) filter (where s.workers = 0), 0)::bigint as unserved,
               max(s.oldest_due_age) as oldest_due_age,
               coalesce(bool_or(s.counts_are_minimum), false) as more
          from lapse.queue_by_storage as s) as o
 cross join (select count(*) as dead
               from (select from lapse.file_cleanup_queue as q where q.dead_at is not null limit 10001) as q) as d
 cross join (select count(*) as seen,
                    count(*) filter (where l.outcome in ('deleted', 'missing')) as files_last_day,
                    coalesce(sum(l.bytes), 0)::bigint as bytes_last_day
               from (select l.outcome, l.bytes
                       from lapse.file_cleanup_log as l
                      where l.finished_at > statement_timestamp() - interval '1 day'
                      order by l.finished_at desc
                      limit 100001) as l) as l;

comment on view lapse.queue_status is
    'The file queue at a glance: one row. Counts stop at 10,000 rows of each storage (the last day''s at 100,000), as counts_are_minimum says.';
comment on column lapse.queue_status.pending is 'Rows not dead: waiting for their time, due, leased or retrying.';
comment on column lapse.queue_status.due is 'Rows due now that no worker holds.';
comment on column lapse.queue_status.leased is 'Rows that a worker holds.';
comment on column lapse.queue_status.retrying is 'Rows that failed before and are not leased now.';
comment on column lapse.queue_status.dead is 'Rows given up: see lapse.queue_detail, lapse.retry_files, lapse.discard_files.';
comment on column lapse.queue_status.unserved is
    'Due rows of storages that no living worker serves: they wait until one does. See lapse.queue_by_storage.';
comment on column lapse.queue_status.oldest_due_age is 'How long the oldest due row has waited past its time.';
comment on column lapse.queue_status.files_last_day is 'Files deleted, or found missing, in the last 24 hours.';
comment on column lapse.queue_status.bytes_last_day is 'Bytes that this released.';
comment on column lapse.queue_status.counts_are_minimum is 'True where there was more than was looked at: read "at least".';
