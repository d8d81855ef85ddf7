"""The engine's tables: what holds data. What only behaves is in engine_0002.

Revision ID: engine_0001
Revises:
"""

from pglapse.replaceable import apply, asked_for, run_script

revision = "engine_0001"
down_revision = None
branch_labels = ("engine",)
depends_on = None

TABLES = """
create type lapse.progress as (picked integer, handled integer, reached timestamptz);
comment on type lapse.progress is
    'What a step function answers: rows picked, rows really changed, and the due time of the last row picked.';

create type lapse.due_row as (key text, due timestamptz);
comment on type lapse.due_row is 'A row that is due: its key as text, and its due time.';

create type lapse.file_request as (
    storage      text,
    path         text,
    not_before   timestamptz,
    reason       text,
    source_table text,
    source_id    text,
    expected     jsonb
);
comment on type lapse.file_request is
    'One file to delete, as lapse.enqueue_files takes it: where it is, when it may go, why, which row asked, and what the file must still be.';

-- Numbers of the engine that an operator may want to change. One row, typed columns: a wrong value is refused
-- by its type or its check, not found at night.
create table lapse.setting (
    only_row           boolean  primary key default true check (only_row),
    notify_horizon     interval not null default interval '30 s'
                       check (notify_horizon between interval '1 s' and interval '1 hour'),
    max_attempts       integer  not null default 10 check (max_attempts between 1 and 1000),
    max_lost           integer  not null default 3 check (max_lost between 1 and 1000),
    backoff_base       interval not null default interval '5 s'
                       check (backoff_base between interval '10 ms' and interval '1 hour'),
    backoff_cap        interval not null default interval '1 hour'
                       check (backoff_cap between interval '1 s' and interval '7 days'),
    run_log_keep       interval not null default interval '30 days'
                       check (run_log_keep >= interval '1 hour'),
    file_log_keep      interval not null default interval '30 days'
                       check (file_log_keep >= interval '1 hour'),
    cron_details_keep  interval not null default interval '7 days'
                       check (cron_details_keep >= interval '1 hour')
);
comment on table  lapse.setting is 'The engine''s numbers: exactly one row. Change it with UPDATE.';
comment on column lapse.setting.only_row is 'Always true: keeps the table to one row.';
comment on column lapse.setting.notify_horizon is
    'Queue rows due within this time send a NOTIFY; workers poll no slower than this.';
comment on column lapse.setting.max_attempts is 'Failed attempts after which a queue row is dead.';
comment on column lapse.setting.max_lost is
    'Times that a worker may vanish over one file, with nothing else in its hands, before its queue row is dead.';
comment on column lapse.setting.backoff_base is 'Wait after the first failed attempt; doubles with each further one.';
comment on column lapse.setting.backoff_cap is 'The longest wait between two attempts.';
comment on column lapse.setting.run_log_keep is 'How long lapse.run_log keeps a run.';
comment on column lapse.setting.file_log_keep is 'How long lapse.file_cleanup_log keeps a finished file.';
comment on column lapse.setting.cron_details_keep is
    'How long our own rows stay in cron.job_run_details.';

-- Which database this is. A logical copy (dump and restore, template) has another name or system identifier.
create table lapse.identity (
    only_row          boolean     primary key default true check (only_row),
    system_identifier bigint      not null,
    database_name     text        not null,
    adopted_at        timestamptz not null default now(),
    adopted_by        text        not null default current_user,
    disowned_at       timestamptz,
    disowned_by       text,
    constraint identity_disowned_by_somebody check (num_nulls(disowned_at, disowned_by) in (0, 2))
);
comment on table  lapse.identity is
    'The database that pglapse works for: exactly one row. In any other, a copy, nothing runs: lapse.adopt_database.';
comment on column lapse.identity.only_row is 'Always true: keeps the table to one row.';
comment on column lapse.identity.system_identifier is 'From pg_control_system() at install, or when the database was adopted.';
comment on column lapse.identity.database_name is 'From current_database() at that time.';
comment on column lapse.identity.adopted_at is 'When that was.';
comment on column lapse.identity.adopted_by is 'The role that installed or adopted.';
comment on column lapse.identity.disowned_at is 'When lapse.disown_database said that this is a copy; NULL: it did not.';
comment on column lapse.identity.disowned_by is 'The role that said so.';

create table lapse.policy (
    name         text        primary key check (name ~ '^[a-z][a-z0-9_]{0,62}$'),
    description  text        not null,
    step         text        not null,
    every        interval    not null,
    at_time      time,
    time_zone    text        not null,
    batch_size   integer     not null check (batch_size between 1 and 100000),
    max_runtime  interval    not null,
    lock_timeout interval    not null,
    enabled      boolean     not null,
    target_table text,
    key_columns  text[],
    due_column   text,
    predicate    text,
    older_than   interval,
    due_zone     text,
    action       text        check (action in ('delete', 'update', 'call')),
    max_fraction numeric     check (max_fraction > 0 and max_fraction <= 1),
    brake_rows   bigint      check (brake_rows >= 0),
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    constraint policy_brake_is_whole check (num_nulls(max_fraction, brake_rows) in (0, 2)),
    constraint policy_target_is_whole check (num_nulls(target_table, key_columns, due_column) in (0, 3))
);
comment on table  lapse.policy is
    'What lapses, and when to look: a step function, its cadence and its limits. Use lapse.create_policy and its sisters.';
comment on column lapse.policy.name is 'Lower-case name, unique.';
comment on column lapse.policy.description is 'One sentence for people.';
comment on column lapse.policy.step is
    'The step function, schema.name; signature (integer, timestamptz, timestamptz) returns lapse.progress.';
comment on column lapse.policy.every is 'Cadence: 10 seconds to 366 days, no months or years.';
comment on column lapse.policy.at_time is 'Local time of day, for cadences of whole days.';
comment on column lapse.policy.time_zone is 'The time zone of at_time, an IANA name.';
comment on column lapse.policy.batch_size is 'The most rows that one batch (one transaction) may take.';
comment on column lapse.policy.max_runtime is 'The most working time of one run; what is left is taken by the next.';
comment on column lapse.policy.lock_timeout is 'How long a batch waits for a lock before it gives up.';
comment on column lapse.policy.enabled is 'False: paused. A running run stops within one batch.';
comment on column lapse.policy.target_table is 'The table that the step works on, schema.table; NULL when it is not one table.';
comment on column lapse.policy.key_columns is 'Its key, in index order.';
comment on column lapse.policy.due_column is 'The column that says when a row is due, or with older_than, since when it ages.';
comment on column lapse.policy.predicate is
    'The state that a due row is in, as SQL over the target''s columns with literals (''status = ''''active''''''); NULL for all rows.';
comment on column lapse.policy.older_than is 'A row is due when its due column is this old; NULL: the due column is the due time.';
comment on column lapse.policy.due_zone is 'The time zone of a due column that has none itself; NULL for timestamptz.';
comment on column lapse.policy.action is
    'What its generated step does with due rows: delete, update or call. NULL: the step is written by hand.';
comment on column lapse.policy.max_fraction is
    'The brake: a run that would take more than this share of the table, and more than brake_rows, takes nothing and stops; NULL or 1: none.';
comment on column lapse.policy.brake_rows is 'So many rows may go whatever their share of the table.';
comment on column lapse.policy.created_at is 'When the policy was made.';
comment on column lapse.policy.updated_at is 'When it was last altered, paused or resumed.';

create sequence lapse.run_id_seq;
comment on sequence lapse.run_id_seq is 'Numbers runs; a run''s advisory lock is keyed by its number.';

create table lapse.policy_state (
    policy               text        primary key references lapse.policy on update cascade on delete cascade,
    slot_at              timestamptz not null,
    next_run_at          timestamptz not null,
    last_served_at       timestamptz,
    batch_limit          integer     not null,
    run_id               bigint,
    run_source           text,
    run_pid              integer,
    run_as_of            timestamptz,
    run_started_at       timestamptz,
    run_busy             interval,
    run_reached          timestamptz,
    run_batches          integer,
    run_picked           bigint,
    run_handled          bigint,
    run_blocked          integer,
    run_streak           integer,
    run_streak_since     timestamptz,
    run_suspect          integer,
    last_run_at          timestamptz,
    last_status          text,
    last_rows            bigint,
    last_duration        interval,
    last_error           text,
    consecutive_failures integer     not null default 0,
    braked_at            timestamptz,
    braked_rows          bigint,
    braked_of            bigint,
    released_rows        bigint
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
comment on table  lapse.policy_state is
    'One row a policy: its place on the time grid, the run that is open, and how the last one ended. Updates are HOT.';
comment on column lapse.policy_state.policy is 'The policy.';
comment on column lapse.policy_state.slot_at is 'The latest slot of the nominal time grid that was due or is next.';
comment on column lapse.policy_state.next_run_at is 'When lapse.run_due serves it next: a slot, or earlier while work is left, or later after failures.';
comment on column lapse.policy_state.last_served_at is 'When its last batch ended: the least recently served policy goes first.';
comment on column lapse.policy_state.batch_limit is 'The batch size that the last batches settled on, at most policy.batch_size.';
comment on column lapse.policy_state.run_id is 'The open run, or NULL. Every batch checks that the run is still its own.';
comment on column lapse.policy_state.run_source is 'Who opened it: pg_cron, worker or manual.';
comment on column lapse.policy_state.run_pid is 'The server process that runs it.';
comment on column lapse.policy_state.run_as_of is 'Its cutoff: rows due at or before this time are taken.';
comment on column lapse.policy_state.run_started_at is 'When it began.';
comment on column lapse.policy_state.run_busy is 'Working time so far, all batches together.';
comment on column lapse.policy_state.run_reached is 'The due time reached: the next batch starts there.';
comment on column lapse.policy_state.run_batches is 'Batches so far.';
comment on column lapse.policy_state.run_picked is 'Rows picked so far.';
comment on column lapse.policy_state.run_handled is 'Rows really changed so far.';
comment on column lapse.policy_state.run_blocked is 'Rows set aside so far.';
comment on column lapse.policy_state.run_streak is 'Rows set aside in a row, without a success between them.';
comment on column lapse.policy_state.run_streak_since is 'When that row of failures began.';
comment on column lapse.policy_state.run_suspect is
    'While a batch''s failing row is hunted for: it is among this many next rows. 0 otherwise.';
comment on column lapse.policy_state.last_run_at is 'When the last run ended.';
comment on column lapse.policy_state.last_status is 'How it ended: ok, failed, lost, stopped or braked.';
comment on column lapse.policy_state.last_rows is 'Rows that it changed.';
comment on column lapse.policy_state.last_duration is 'How long it took, from first to last.';
comment on column lapse.policy_state.last_error is 'Its error, if it failed; what was too much, if it was braked.';
comment on column lapse.policy_state.consecutive_failures is 'Failed or lost runs since the last good one.';
comment on column lapse.policy_state.braked_at is
    'Since when the brake holds it: it takes nothing until lapse.release_brake, or until no more than brake_rows are due.';
comment on column lapse.policy_state.braked_rows is 'Rows that were due then.';
comment on column lapse.policy_state.braked_of is 'Rows that the table had then.';
comment on column lapse.policy_state.released_rows is
    'Rows that lapse.release_brake still lets through beyond what the brake allows; NULL once a run has come to its end.';

create table lapse.run_log (
    id          bigint      generated always as identity primary key,
    run_id      bigint,
    policy      text        not null,
    source      text        not null,
    status      text        not null check (status in ('ok', 'failed', 'skipped', 'lost', 'stopped', 'braked')),
    as_of       timestamptz,
    started_at  timestamptz not null,
    finished_at timestamptz not null,
    batches     integer     not null default 0,
    picked      bigint      not null default 0,
    handled     bigint      not null default 0,
    blocked     integer     not null default 0,
    more        boolean     not null default false,
    sqlstate    text,
    message     text,
    detail      text,
    hint        text,
    context     text
);
create index run_log_finished_at on lapse.run_log (finished_at);
create index run_log_policy on lapse.run_log (policy, finished_at);
comment on table  lapse.run_log is
    'Runs that did something, failed, were skipped or lost. An empty run only updates lapse.policy_state.';
comment on index  lapse.run_log_finished_at is 'For pruning.';
comment on index  lapse.run_log_policy is 'For the last day of one policy.';
comment on column lapse.run_log.id is 'Number of the entry.';
comment on column lapse.run_log.run_id is 'Number of the run; NULL for one that was skipped before it began.';
comment on column lapse.run_log.policy is 'The policy; kept when the policy is dropped.';
comment on column lapse.run_log.source is 'Who ran it: pg_cron, worker or manual.';
comment on column lapse.run_log.status is
    'ok; failed (see message); skipped (another run was under way); lost (its backend went away); stopped (paused, dropped, taken over or halted in between); braked (too much was due: nothing taken).';
comment on column lapse.run_log.as_of is 'Rows due at or before this time were taken.';
comment on column lapse.run_log.started_at is 'When it began.';
comment on column lapse.run_log.finished_at is 'When it ended, or was found lost.';
comment on column lapse.run_log.batches is 'Batches: transactions.';
comment on column lapse.run_log.picked is 'Rows picked.';
comment on column lapse.run_log.handled is 'Rows really changed.';
comment on column lapse.run_log.blocked is 'Rows set aside in lapse.blocked_row.';
comment on column lapse.run_log.more is 'True when time ran out before the work did.';
comment on column lapse.run_log.sqlstate is 'SQLSTATE of the error.';
comment on column lapse.run_log.message is 'Its message.';
comment on column lapse.run_log.detail is 'Its detail.';
comment on column lapse.run_log.hint is 'Its hint.';
comment on column lapse.run_log.context is 'Where it was raised.';

create table lapse.blocked_row (
    policy     text        not null references lapse.policy on update cascade on delete cascade,
    key        text        not null,
    due        timestamptz,
    sqlstate   text,
    error      text        not null,
    attempts   integer     not null default 1,
    run_id     bigint      not null,
    since      timestamptz not null default clock_timestamp(),
    touched_at timestamptz not null default clock_timestamp(),
    retry_at   timestamptz not null,
    hold_table text,
    hold_key   text,
    primary key (policy, key),
    constraint blocked_row_hold_has_no_end check (hold_key is null or retry_at = 'infinity'),
    constraint blocked_row_hold_is_named   check (num_nulls(hold_table, hold_key) <> 1)
);
comment on table  lapse.blocked_row is
    'Rows that made their batch fail, or that a trigger kept: left out until retry_at, so that they do not stop the rest.';
comment on column lapse.blocked_row.policy is 'The policy.';
comment on column lapse.blocked_row.key is 'The row''s key as text; of several columns, an array''s text.';
comment on column lapse.blocked_row.due is 'When the row was due.';
comment on column lapse.blocked_row.sqlstate is 'SQLSTATE of the error; NULL when a trigger or rule kept the row.';
comment on column lapse.blocked_row.error is 'What was wrong, with the constraint''s name where there is one.';
comment on column lapse.blocked_row.attempts is 'How often it was tried.';
comment on column lapse.blocked_row.run_id is 'The run that tried it last.';
comment on column lapse.blocked_row.since is 'When it was first set aside.';
comment on column lapse.blocked_row.touched_at is 'When it was last set aside.';
comment on column lapse.blocked_row.retry_at is
    'When a run may take it again. Set it to now() to retry at once. Infinity: it is held.';
comment on column lapse.blocked_row.hold_table is
    'The table that lapse.hold has for a row that somebody holds, or that would go along with this one; NULL for a row that was set aside.';
comment on column lapse.blocked_row.hold_key is 'The key that lapse.hold has for that row.';

create table lapse.hold (
    target_table text        not null,
    target_oid   oid         not null,
    oids_of      oid         not null,
    target_names text[]      not null,
    key          text        not null,
    key_columns  text[]      not null,
    file_key     text        not null,
    reason       text        not null check (reason <> ''),
    held_by      text        not null,
    held_at      timestamptz not null default clock_timestamp(),
    primary key (target_table, key)
);
comment on table  lapse.hold is
    'Rows that stay, and their files, whatever is due: until lapse.release_hold. Written by lapse.hold alone.';
comment on column lapse.hold.target_table is 'The table, schema.name, by the name that it had; of a partition, the whole table.';
comment on column lapse.hold.target_oid is 'Its number in pg_class, whatever its name is now.';
comment on column lapse.hold.oids_of is
    'The number that lapse.hold had when target_oid was written. Where it has another, a dump was restored, and names alone count.';
comment on column lapse.hold.target_names is 'Each name that the table has had while it was held: a table of any of these names is held.';
comment on column lapse.hold.key is 'The row''s key as text; of several columns, an array''s text.';
comment on column lapse.hold.key_columns is 'The columns of that key.';
comment on column lapse.hold.file_key is
    'The key by which lapse.attach_files names the row in the queue: the primary key, where that is another.';
comment on column lapse.hold.reason is 'Why.';
comment on column lapse.hold.held_by is 'The role that held it.';
comment on column lapse.hold.held_at is 'Since when.';

create table lapse.tick_source (
    source       text        primary key check (source in ('pg_cron', 'worker', 'manual')),
    last_tick_at timestamptz not null,
    ticks        bigint      not null default 1
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
comment on table  lapse.tick_source is 'Who calls lapse.run_due, and when last: how a dead scheduler is noticed.';
comment on column lapse.tick_source.source is 'pg_cron, worker or manual.';
comment on column lapse.tick_source.last_tick_at is 'When it last called.';
comment on column lapse.tick_source.ticks is 'How often it has called.';

create table lapse.tick_turn (
    only_row boolean     primary key default true check (only_row),
    worker   text        not null,
    since    timestamptz not null default clock_timestamp()
);
comment on table  lapse.tick_turn is 'Which worker keeps the schedule where pg_cron does not: one row, or none while none does.';
comment on column lapse.tick_turn.only_row is 'There is one row at most.';
comment on column lapse.tick_turn.worker is 'The worker''s name, as in lapse.worker; its turn lasts as long as its heartbeats.';
comment on column lapse.tick_turn.since is 'Since when.';

create table lapse.cron_job (
    cron_database text        not null,
    jobname       text        not null,
    jobid         bigint      not null,
    schedule      text        not null,
    command       text        not null,
    scheduled_at  timestamptz not null default now(),
    scheduled_by  text        not null default session_user,
    primary key (cron_database, jobname)
);
comment on table  lapse.cron_job is 'The pg_cron jobs that pglapse made, also those that live in another database of the cluster.';
comment on column lapse.cron_job.cron_database is 'The database where pg_cron lives.';
comment on column lapse.cron_job.jobname is 'The job''s name there.';
comment on column lapse.cron_job.jobid is 'Its number there.';
comment on column lapse.cron_job.schedule is 'Its schedule.';
comment on column lapse.cron_job.command is 'Its command.';
comment on column lapse.cron_job.scheduled_at is 'When it was made or last renewed.';
comment on column lapse.cron_job.scheduled_by is 'By which role.';

create sequence lapse.lease_token_seq;
comment on sequence lapse.lease_token_seq is 'Lease tokens: each claim takes a new one, so a late result can''t touch a row claimed again.';

create table lapse.file_cleanup_queue (
    id           bigint      generated always as identity primary key,
    storage      text        not null,
    path         text        not null,
    reason       text        not null default 'requested',
    source_table text,
    source_id    text,
    expected     jsonb,
    not_before   timestamptz not null default now(),
    enqueued_at  timestamptz not null default now(),
    generation   integer     not null default 0,
    again_at     timestamptz,
    again_expected jsonb,
    cancelled_at timestamptz,
    leased_at    timestamptz,
    leased_until timestamptz,
    leased_by    text,
    lease_token  bigint,
    lease_size   integer,
    lost         integer     not null default 0,
    attempts     integer     not null default 0,
    last_error   text,
    dead_at      timestamptz,
    -- One check: each is made ready anew for every statement, also for one that writes a single row.
    constraint file_cleanup_queue_expected check (jsonb_typeof(expected) = 'array'
                                                  and jsonb_typeof(again_expected) = 'array')
) with (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);
create unique index file_cleanup_queue_file on lapse.file_cleanup_queue (storage, lapse.path_digest(path));
create index file_cleanup_queue_due on lapse.file_cleanup_queue (storage, not_before, id) where dead_at is null;
create index file_cleanup_queue_dead on lapse.file_cleanup_queue (dead_at, id) where dead_at is not null;
comment on table  lapse.file_cleanup_queue is
    'Files to delete, written in the transaction that condemns them and drained by pglapse workers. Finished rows move to lapse.file_cleanup_log.';
comment on index  lapse.file_cleanup_queue_file is 'A file needs deleting once; by digest, since a long path does not fit an index entry.';
comment on index  lapse.file_cleanup_queue_due is 'For claims: each storage by itself, so none waits for another; by due time, so rows due later cost nothing.';
comment on index  lapse.file_cleanup_queue_dead is 'For looking at dead rows.';
comment on column lapse.file_cleanup_queue.id is 'Number of the request.';
comment on column lapse.file_cleanup_queue.storage is 'Name of the storage, as in the worker''s configuration.';
comment on column lapse.file_cleanup_queue.path is 'Path below the storage''s root. Data from the application: no worker trusts it.';
comment on column lapse.file_cleanup_queue.reason is 'Why the file goes, in a word or two.';
comment on column lapse.file_cleanup_queue.source_table is 'The table of the row that asked, schema.table.';
comment on column lapse.file_cleanup_queue.source_id is 'The key of that row, as text.';
comment on column lapse.file_cleanup_queue.expected is
    'What the file must still be, or it is left alone: an array of alternatives like {"size": 1, "mtime_ns": 2, "etag": "x"}; NULL: no matter.';
comment on column lapse.file_cleanup_queue.not_before is 'When the file may go at the earliest.';
comment on column lapse.file_cleanup_queue.enqueued_at is 'When it was first asked for.';
comment on column lapse.file_cleanup_queue.generation is
    'How often it was asked for through lapse.enqueue_files; 0 marks a plain INSERT on its way in.';
comment on column lapse.file_cleanup_queue.again_at is
    'Asked for again while a worker held it: once that is finished, it is due again at this time.';
comment on column lapse.file_cleanup_queue.again_expected is
    'With again_at: what the file must be then. Says nothing without it.';
comment on column lapse.file_cleanup_queue.cancelled_at is
    'Cancelled while a worker held it: if the worker fails, the row is not tried again.';
comment on column lapse.file_cleanup_queue.leased_at is
    'Since when a worker holds it: what is said of the file from then on, the worker did not know of.';
comment on column lapse.file_cleanup_queue.leased_until is 'Until when a worker holds it; after that another may take it.';
comment on column lapse.file_cleanup_queue.leased_by is 'Which worker.';
comment on column lapse.file_cleanup_queue.lease_token is 'Proof of the lease; results with another token change nothing.';
comment on column lapse.file_cleanup_queue.lease_size is
    'How many files of this storage were taken together; 1 only if its worker holds nothing else at all. What is lost is taken again by halves.';
comment on column lapse.file_cleanup_queue.lost is
    'How often its worker vanished while it held nothing else at all: after lapse.setting.max_lost times it is dead.';
comment on column lapse.file_cleanup_queue.attempts is 'Attempts so far, counted when a worker takes the row.';
comment on column lapse.file_cleanup_queue.last_error is 'Why the last attempt failed.';
comment on column lapse.file_cleanup_queue.dead_at is 'When it was given up; see last_error. lapse.retry_files revives it.';

create table lapse.file_cleanup_log (
    id           bigint      generated always as identity,
    queue_id     bigint      not null,
    storage      text        not null,
    path         text        not null,
    reason       text        not null,
    source_table text,
    source_id    text,
    outcome      text        not null check (outcome in ('deleted', 'missing', 'changed', 'in_use', 'cancelled', 'discarded')),
    bytes        bigint,
    worker       text,
    attempts     integer     not null,
    note         text,
    enqueued_at  timestamptz not null,
    not_before   timestamptz not null,
    finished_at  timestamptz not null default clock_timestamp(),
    constraint file_cleanup_log_pkey primary key (finished_at, id)
);
comment on table  lapse.file_cleanup_log is 'What became of each file: kept for lapse.setting.file_log_keep.';
comment on index  lapse.file_cleanup_log_pkey is
    'Also for pruning and for the last day''s sums: a second index costs each finished file a tenth more.';
comment on column lapse.file_cleanup_log.id is 'Number of the entry.';
comment on column lapse.file_cleanup_log.queue_id is 'Number that it had in the queue.';
comment on column lapse.file_cleanup_log.storage is 'Name of the storage.';
comment on column lapse.file_cleanup_log.path is 'Path below its root.';
comment on column lapse.file_cleanup_log.reason is 'Why it was queued.';
comment on column lapse.file_cleanup_log.source_table is 'The table of the row that asked.';
comment on column lapse.file_cleanup_log.source_id is 'The key of that row.';
comment on column lapse.file_cleanup_log.outcome is
    'deleted; missing (was not there); changed (not the file that was meant any more: left alone); in_use (a live row still needs it); cancelled; discarded (by an operator).';
comment on column lapse.file_cleanup_log.bytes is 'Bytes that the deletion released.';
comment on column lapse.file_cleanup_log.worker is 'Which worker, where one was at work.';
comment on column lapse.file_cleanup_log.attempts is 'Attempts that it took.';
comment on column lapse.file_cleanup_log.note is 'More about the outcome.';
comment on column lapse.file_cleanup_log.enqueued_at is 'When it was queued.';
comment on column lapse.file_cleanup_log.not_before is 'When it was due.';
comment on column lapse.file_cleanup_log.finished_at is 'When it was finished.';

create table lapse.file_source (
    name          text        primary key,
    in_use        text        not null,
    removed       text,
    known         text,
    listed        text,
    storages      text[]      check (storages <> '{}'),
    registered_at timestamptz not null default now()
);
comment on table  lapse.file_source is
    'Schemas that know of files: asked before a file is deleted, told after. See lapse.register_file_source.';
comment on column lapse.file_source.name is 'Name of the source.';
comment on column lapse.file_source.in_use is
    'schema.function (p_storages text[], p_paths text[]) returns table (storage text, path text, until timestamptz): those still needed.';
comment on column lapse.file_source.removed is
    'schema.function (p_storages text[], p_paths text[], p_claimed_at timestamptz[]) returns table (storage text, path text): records that files are gone, returns those whose rows are locked.';
comment on column lapse.file_source.known is
    'schema.function (p_storages text[], p_paths text[]) returns table (storage text, path text): those that some row speaks of, needed or not.';
comment on column lapse.file_source.listed is
    'schema.function (p_storage text, p_after text, p_limit integer) returns table (path text): the paths of a storage, page by page.';
comment on column lapse.file_source.storages is
    'The storages that it knows of, and is asked about; NULL: any.';
comment on column lapse.file_source.registered_at is 'When it was registered.';

create table lapse.attachment (
    name           text        primary key references lapse.file_source on update cascade on delete cascade,
    target_table   text        not null,
    path_column    text        not null,
    storage        text,
    storage_column text,
    live_when      text,
    due            text,
    grace          jsonb       not null,
    removed_column text,
    function       text        not null unique,
    lookup         text        check (lookup in ('digest', 'path')),
    index_name     text,
    attached_at    timestamptz not null default now(),
    attached_by    text        not null,
    constraint attachment_storage_is_one check (num_nonnulls(storage, storage_column) = 1),
    constraint attachment_column unique (target_table, path_column)
);
comment on table  lapse.attachment is
    'Tables whose files are queued by triggers that lapse.attach_files made. It and lapse.detach_files write here, nobody else.';
comment on column lapse.attachment.name is 'The file source that answers for the table.';
comment on column lapse.attachment.target_table is 'The table, schema.table, quoted where needed.';
comment on column lapse.attachment.path_column is 'Its column that holds the path.';
comment on column lapse.attachment.storage is 'The storage of all its files, or';
comment on column lapse.attachment.storage_column is 'the column that names each file''s.';
comment on column lapse.attachment.live_when is 'The state in which a row needs its file, as SQL over its columns; NULL: any.';
comment on column lapse.attachment.due is 'When the file of a row in another state may go, as SQL over its columns; NULL: after its grace.';
comment on column lapse.attachment.grace is 'How long a file is kept once its row is deleted, replaced, truncated or ended.';
comment on column lapse.attachment.removed_column is 'The column that says when the file was deleted.';
comment on column lapse.attachment.function is 'The trigger function, schema.function; those of the file source are named after it.';
comment on column lapse.attachment.lookup is
    'How rows are found by their file: by an index on the path''s digest or on the path. NULL: there is no index yet, and no file goes.';
comment on column lapse.attachment.index_name is 'The index that was made for it and goes with it.';
comment on column lapse.attachment.attached_at is 'When it was attached, or attached anew.';
comment on column lapse.attachment.attached_by is 'The role that owned the table then.';

create table lapse.worker (
    id           text        primary key,
    host         text        not null,
    pid          integer     not null,
    version      text        not null,
    started_at   timestamptz not null default clock_timestamp(),
    last_seen_at timestamptz not null default clock_timestamp(),
    ticking      boolean     not null default false,
    files_done   bigint      not null default 0,
    files_failed bigint      not null default 0,
    bytes_freed  bigint      not null default 0,
    storages     text[]      not null default '{}',
    troubles     jsonb       not null default '{}' check (jsonb_typeof(troubles) = 'object')
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
comment on table  lapse.worker is 'Heartbeats of the workers.';
comment on column lapse.worker.id is 'The worker''s own name: host, process and a random part.';
comment on column lapse.worker.host is 'The host that it runs on.';
comment on column lapse.worker.pid is 'Its process there.';
comment on column lapse.worker.version is 'Version of pglapse.';
comment on column lapse.worker.started_at is 'Since when.';
comment on column lapse.worker.last_seen_at is 'Last heartbeat.';
comment on column lapse.worker.ticking is 'True while this worker keeps the schedule in place of pg_cron.';
comment on column lapse.worker.files_done is 'Files deleted or found missing since it started.';
comment on column lapse.worker.files_failed is 'Failed attempts since it started.';
comment on column lapse.worker.bytes_freed is 'Bytes released since it started.';
comment on column lapse.worker.storages is 'The storages that it deletes from.';
comment on column lapse.worker.troubles is 'What is wrong with which of them now: {"storage": "what is wrong"}.';

create table lapse.storage (
    name            text        primary key,
    marker          uuid,
    marked_at       timestamptz,
    sweep_began_at  timestamptz,
    sweep_ended_at  timestamptz,
    sweep_result    jsonb,
    first_served_at timestamptz not null default clock_timestamp(),
    last_served_at  timestamptz not null default clock_timestamp()
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
comment on table  lapse.storage is
    'Storages that a worker has served: files of any other can''t be deleted by anybody, and their queue rows are given up.';
comment on column lapse.storage.name is 'Name of the storage, as in the workers'' configuration and in the queue.';
comment on column lapse.storage.marker is 'The number in its root''s marker, by which the root is known from any other folder.';
comment on column lapse.storage.marked_at is 'When a worker first saw that number in the root: from then on no root without it is taken for this storage''s.';
comment on column lapse.storage.sweep_began_at is 'When a sweep for files that no row knows last began.';
comment on column lapse.storage.sweep_ended_at is 'When it ended; NULL, or before it began: it is under way, or its worker is gone.';
comment on column lapse.storage.sweep_result is 'What the last one that ended found: files, orphans, bytes, queued, and why it stopped.';
comment on column lapse.storage.first_served_at is 'When a worker first said that it serves it.';
comment on column lapse.storage.last_served_at is 'When a worker last said so, to a minute or so.';

insert into lapse.setting default values;
insert into lapse.identity (system_identifier, database_name)
select c.system_identifier, current_database() from pg_control_system() as c;

revoke all on all tables in schema lapse from public;
revoke all on all sequences in schema lapse from public;
revoke all on all routines in schema lapse from public;
"""

DROP = """
drop table lapse.storage, lapse.worker, lapse.attachment, lapse.file_source, lapse.file_cleanup_log, lapse.file_cleanup_queue, lapse.cron_job,
    lapse.tick_turn, lapse.tick_source, lapse.hold, lapse.blocked_row, lapse.run_log, lapse.policy_state, lapse.policy, lapse.identity,
    lapse.setting;
drop sequence lapse.lease_token_seq, lapse.run_id_seq;
drop type lapse.file_request, lapse.due_row, lapse.progress;
drop function lapse.path_digest(text);
"""


# Whoever drops the queue forgets files that were to be deleted. The lock waits for those that are just being queued.
REFUSE = """
do $$
declare
    v_files bigint;
begin
    lock table lapse.file_cleanup_queue in access exclusive mode;
    select count(*) into v_files from lapse.file_cleanup_queue;
    if v_files > 0 then
        raise exception 'files are still queued to be deleted: %', v_files
              using errcode = 'LP008',
                    hint = 'Let a worker drain it (pglapse worker --once; pglapse queue list shows dead ones), or give '
                           'it up: pglapse downgrade --discard-queue, or alembic -x discard-queue downgrade.';
    end if;
end;
$$;
"""


# What users made of ours is theirs to drop: indexes over lapse.path_digest, steps that return lapse.progress.
NEEDED = """
do $$
declare
    v_what     text;
    v_commands text;
begin
    with ours as (
        select 'pg_proc'::regclass as class, 'lapse.path_digest(text)'::regprocedure::oid as object
        union all
        select 'pg_type'::regclass, t.oid from pg_type as t where t.typnamespace = 'lapse'::regnamespace
    ),
    theirs as (
        select distinct d.classid, d.objid, d.objsubid, n.nspname
          from ours as o
          join pg_depend as d on d.refclassid = o.class and d.refobjid = o.object and d.deptype in ('n', 'a')
         cross join lateral pg_identify_object(d.classid, d.objid, d.objsubid) as i
          left join pg_namespace as n on n.nspname = i.schema
         where d.classid not in ('pg_type'::regclass, 'pg_attrdef'::regclass)
    )
    select string_agg(pg_describe_object(t.classid, t.objid, t.objsubid), ', ' order by t.classid, t.objid),
           string_agg(case when t.classid = 'pg_proc'::regclass then format('drop function %s;', t.objid::regprocedure)
                           when c.relkind in ('i', 'I') then format('drop index %s;', c.oid::regclass) end,
                      ' ' order by t.classid, t.objid)
      into v_what, v_commands
      from theirs as t
      left join pg_class as c on t.classid = 'pg_class'::regclass and c.oid = t.objid
     where t.nspname is distinct from 'lapse';
    if v_what is not null then
        raise exception 'this needs pglapse, and is not pglapse''s own: %', v_what
              using errcode = 'dependent_objects_still_exist',
                    hint = concat_ws(' ', 'Drop it first.', v_commands);
    end if;
end;
$$;
"""


# In SQL_ASCII a text is any bytes. A worker that is to delete a file needs to know its name.
ENCODING = """
do $$
begin
    if current_setting('server_encoding') = 'SQL_ASCII' then
        raise exception 'a database with encoding SQL_ASCII does not know what its texts say'
              using errcode = 'feature_not_supported',
                    hint = 'Use a database with another encoding, UTF8 for choice: create database ... '
                           'template template0 encoding ''UTF8''.';
    end if;
end;
$$;
"""


def upgrade() -> None:
    run_script(ENCODING)
    apply("engine_0001", "functions/lapse/path_digest.sql")
    run_script(TABLES)


def downgrade() -> None:
    if not asked_for("discard-queue"):
        run_script(REFUSE)
    run_script(NEEDED)
    run_script(DROP)
