-- lapse.storage_status: the storages that workers have served, how each one's root is known, and
-- what the workers that are alive say is wrong with it.
--
-- One row for each, served now or not. What is queued for it is in lapse.queue_by_storage.

create or replace view lapse.storage_status as
select s.name as storage, s.marker, s.marked_at, s.first_served_at, s.last_served_at, w.workers, w.troubles,
       s.sweep_began_at, s.sweep_ended_at, s.sweep_result
  from lapse.storage as s
 cross join lateral (
       select count(*) as workers,
              coalesce(array_agg(distinct w.troubles ->> s.name) filter (where w.troubles ? s.name), '{}') as troubles
         from lapse.worker as w cross join lapse.setting as e
        where s.name = any (w.storages)
          and w.last_seen_at > clock_timestamp() - greatest(interval '1 minute', 2 * e.notify_horizon)) as w;

comment on view lapse.storage_status is
    'The storages that workers have served: by which marker each root is known, and what is wrong with them now.';
comment on column lapse.storage_status.storage is 'Name of the storage.';
comment on column lapse.storage_status.marker is 'The number that its root is known by; NULL where it has none, as a bucket.';
comment on column lapse.storage_status.marked_at is 'When a worker first saw that number in the root; NULL: not yet.';
comment on column lapse.storage_status.first_served_at is 'When a worker first said that it serves it.';
comment on column lapse.storage_status.last_served_at is 'When a worker last said so, to a minute or so.';
comment on column lapse.storage_status.workers is 'Living workers that serve it: with none, nothing of it is deleted.';
comment on column lapse.storage_status.troubles is 'What they say is wrong with it: its files wait until that is mended.';
comment on column lapse.storage_status.sweep_began_at is 'When a sweep for files that no row knows last began; NULL: none did.';
comment on column lapse.storage_status.sweep_ended_at is 'When the last one that ended did so.';
comment on column lapse.storage_status.sweep_result is
    'What that found: files, orphans, bytes, queued, and stopped: why, where it stopped by itself.';
