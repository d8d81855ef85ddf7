-- lapse.doctor_checks: what lapse.doctor looks at, in which order.
--
-- Out: each check's place and name, lapse.doctor_NAME being its function, and the
-- role whose members see more of it than the engine's owner might: a caller who is
-- one looks with his own rights, everybody else with the owner's. A superuser is a
-- member of all. NULL: always with the owner's rights. That is so for all that reads
-- other people's tables or plans a query over them: what they contain must never run
-- with a superuser's rights because he asked how things are.

create or replace function lapse.doctor_checks()
    returns table (place integer, name text, seen_by text)
    language sql
    immutable
    set search_path = pg_catalog, pg_temp
as $$
    select c.place, c.name, c.seen_by
      from (values
          ( 1, 'schema',            null::text),
          ( 2, 'identity',          null),
          ( 3, 'clock',             null),
          ( 4, 'pg_cron',           'pg_read_all_settings'),
          ( 5, 'cron_mode',         'pg_read_all_settings'),
          ( 6, 'cron_jobs',         'superuser'),
          ( 7, 'cron_history',      'superuser'),
          ( 8, 'schedule',          null),
          ( 9, 'timeouts',          null),
          (10, 'policies',          null),
          (11, 'lag',               null),
          (12, 'blocked_rows',      null),
          (13, 'index_proofs',      null),
          (14, 'child_indexes',     null),
          (15, 'row_security',      null),
          (16, 'invalid_indexes',   null),
          (17, 'queue',             null),
          (18, 'storages',          null),
          (19, 'sweeps',            null),
          (20, 'attachments',       null),
          (21, 'workers',           null),
          (22, 'snapshots',         'pg_read_all_stats'),
          (23, 'autovacuum',        null),
          (24, 'foreign_keys',      null),
          (25, 'partitions',        null),
          (26, 'triggers',          null),
          (27, 'statuses',          null),
          (28, 'grants',            null)
      ) as c (place, name, seen_by)
$$;

comment on function lapse.doctor_checks() is
    'The checks of lapse.doctor, in order, and the role whose members see more of each than the engine''s owner.';
