-- lapse.worker_status: the workers, and whether they are alive.
--
-- Alive: seen within a minute, or twice the notify horizon where that is longer, since a
-- waiting worker may be as quiet as that.

create or replace view lapse.worker_status as
select w.id as worker, w.host, w.pid, w.version, w.started_at as since, w.last_seen_at as last_seen,
       clock_timestamp() - w.last_seen_at as unseen_for,
       w.last_seen_at > clock_timestamp() - greatest(interval '1 minute', 2 * s.notify_horizon) as alive,
       w.ticking, w.files_done, w.files_failed, w.bytes_freed, w.storages, w.troubles
  from lapse.worker as w cross join lapse.setting as s;

comment on view lapse.worker_status is 'The workers: where they run, when they were last seen, what they have done.';
comment on column lapse.worker_status.worker is 'Its name: host, process and a random part.';
comment on column lapse.worker_status.host is 'The host that it runs on.';
comment on column lapse.worker_status.pid is 'Its process there.';
comment on column lapse.worker_status.version is 'Version of pglapse.';
comment on column lapse.worker_status.since is 'When it started.';
comment on column lapse.worker_status.last_seen is 'Its last heartbeat.';
comment on column lapse.worker_status.unseen_for is 'How long ago that was.';
comment on column lapse.worker_status.alive is 'False when it has been quiet for too long.';
comment on column lapse.worker_status.ticking is 'True while it keeps the schedule in place of pg_cron.';
comment on column lapse.worker_status.files_done is 'Files deleted or found missing since it started.';
comment on column lapse.worker_status.files_failed is 'Failed attempts since it started.';
comment on column lapse.worker_status.bytes_freed is 'Bytes released since it started.';
comment on column lapse.worker_status.storages is 'The storages that it deletes from.';
comment on column lapse.worker_status.troubles is 'What is wrong with which of them now: {"storage": "what is wrong"}.';
