-- lapse.queue_detail: every row of the file queue with its state in one word.
--
-- For people and for `pglapse queue list`. Where the queue is long, filter by storage and not_before, or by
-- dead_at, rather than by state: those have indexes.

create or replace view lapse.queue_detail as
select q.id,
       case
           when q.dead_at is not null then 'dead'
           when q.leased_until > statement_timestamp() then 'leased'
           when q.attempts > 0 then 'retrying'
           when q.not_before <= statement_timestamp() then 'due'
           else 'waiting'
       end as state,
       q.storage, q.path, q.reason, q.source_table, q.source_id, q.expected, q.not_before, q.enqueued_at, q.attempts,
       q.lost, q.last_error, q.leased_by, q.leased_until, q.again_at, q.cancelled_at, q.dead_at
  from lapse.file_cleanup_queue as q;

comment on view lapse.queue_detail is
    'The file queue, row by row. For example: select * from lapse.queue_detail where storage = ''public'' and dead_at is null order by not_before, id limit 20.';
comment on column lapse.queue_detail.id is 'Number of the request.';
comment on column lapse.queue_detail.state is
    'waiting (not due yet), due, leased (a worker holds it), retrying (failed before), dead (given up).';
comment on column lapse.queue_detail.storage is 'Name of the storage.';
comment on column lapse.queue_detail.path is 'Path below its root.';
comment on column lapse.queue_detail.reason is 'Why the file goes.';
comment on column lapse.queue_detail.source_table is 'The table of the row that asked.';
comment on column lapse.queue_detail.source_id is 'The key of that row.';
comment on column lapse.queue_detail.expected is 'What the file must still be, or it is left alone; NULL: no matter.';
comment on column lapse.queue_detail.not_before is 'When it may go at the earliest; after a failure, when it is tried next.';
comment on column lapse.queue_detail.enqueued_at is 'When it was first asked for.';
comment on column lapse.queue_detail.attempts is 'Attempts so far.';
comment on column lapse.queue_detail.lost is 'How often its worker vanished while it held nothing else.';
comment on column lapse.queue_detail.last_error is 'Why the last attempt failed, or why the row waits.';
comment on column lapse.queue_detail.leased_by is 'Which worker holds it, or held it last without reporting back.';
comment on column lapse.queue_detail.leased_until is 'Until when.';
comment on column lapse.queue_detail.again_at is 'Asked for again while a worker held it: due again at this time.';
comment on column lapse.queue_detail.cancelled_at is 'Cancelled while a worker held it: not tried again if that fails.';
comment on column lapse.queue_detail.dead_at is 'When it was given up.';
