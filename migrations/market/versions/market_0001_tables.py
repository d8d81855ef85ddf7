"""The marketplace's tables, first half: people, coupons, invitations, points, tasks and their files.

Revision ID: market_0001
Revises:
"""

from pglapse.replaceable import run_script

revision = "market_0001"
down_revision = None
branch_labels = ("market",)
depends_on = "engine_0002"

# Each index that a policy walks is (due time, key) where STATE, so that rows due later and rows that are
# done cost it nothing. Rows that leave that state leave the index: no such update can be HOT, which is why
# these tables have a livelier autovacuum instead of a fillfactor.
TABLES = """
create schema market;
comment on schema market is 'A task marketplace whose data clean themselves up: the worked example of pglapse.';

create table market.users (
    id           bigint      generated always as identity primary key,
    email        text        not null unique,
    display_name text        not null,
    created_at   timestamptz not null default now()
);
comment on table  market.users is 'People. What belongs to one goes with them; the point ledger stays.';
comment on column market.users.id is 'Number of the user.';
comment on column market.users.email is 'E-mail address, verified.';
comment on column market.users.display_name is 'What others see.';
comment on column market.users.created_at is 'When the account was made.';
comment on index  market.users_pkey is 'By number.';
comment on index  market.users_email_key is 'One account an address.';

create table market.pending_users (
    id           bigint      generated always as identity primary key,
    email        text        not null,
    display_name text,
    token_hash   bytea       not null unique,
    created_at   timestamptz not null default now(),
    expires_at   timestamptz not null,
    verified_at  timestamptz
) with (autovacuum_vacuum_scale_factor = 0.05);
create index pending_users_due on market.pending_users (expires_at, id) where verified_at is null;
comment on table  market.pending_users is
    'Sign-ups whose e-mail address is not verified yet. Policy purge_pending_users deletes those that never were.';
comment on column market.pending_users.id is 'Number of the sign-up.';
comment on column market.pending_users.email is 'The address to verify.';
comment on column market.pending_users.display_name is
    'What the person wants to be called; NULL: the part of the address before the @.';
comment on column market.pending_users.token_hash is 'Hash of the token in the verification link.';
comment on column market.pending_users.created_at is 'When the person signed up.';
comment on column market.pending_users.expires_at is 'When the link lapses: at this time it no longer works.';
comment on column market.pending_users.verified_at is 'When it was used; such a row stays.';
comment on index  market.pending_users_pkey is 'By number.';
comment on index  market.pending_users_token_hash_key is 'A token opens one sign-up.';
comment on index  market.pending_users_due is 'For purge_pending_users: unverified sign-ups by the time they lapse.';

create table market.coupons (
    id          bigint      generated always as identity primary key,
    code        text        not null unique,
    user_id     bigint      references market.users on delete cascade,
    status      text        not null default 'active' check (status in ('active', 'used', 'expired')),
    valid_from  timestamptz not null default now(),
    valid_until timestamptz,
    created_at  timestamptz not null default now(),
    used_at     timestamptz,
    expired_at  timestamptz
) with (autovacuum_vacuum_scale_factor = 0.05);
create index coupons_due on market.coupons (valid_until, id) where status = 'active';
create index coupons_user on market.coupons (user_id) where user_id is not null;
comment on table  market.coupons is
    'Coupons: used once through market.redeem_coupon. Policy expire_coupons marks those that lapsed.';
comment on column market.coupons.id is 'Number of the coupon.';
comment on column market.coupons.code is 'What the user types.';
comment on column market.coupons.user_id is
    'Whose it is; NULL: anybody''s. Once used, who used it.';
comment on column market.coupons.status is 'active, used or expired. A lapsed coupon may still say active: redeem_coupon looks at the time.';
comment on column market.coupons.valid_from is 'Not valid before this time.';
comment on column market.coupons.valid_until is 'Lapses at this time; NULL: never.';
comment on column market.coupons.created_at is 'When it was made.';
comment on column market.coupons.used_at is 'When it was used.';
comment on column market.coupons.expired_at is 'When it was marked expired.';
comment on index  market.coupons_pkey is 'By number.';
comment on index  market.coupons_code_key is 'A code names one coupon.';
comment on index  market.coupons_due is 'For expire_coupons: active coupons by the time they lapse.';
comment on index  market.coupons_user is 'A user''s coupons; keeps the deletion of a user cheap.';

create table market.invitation_codes (
    id          bigint      generated always as identity primary key,
    code        text        not null unique,
    owner_id    bigint      references market.users on delete cascade,
    status      text        not null default 'active' check (status in ('active', 'exhausted', 'expired')),
    max_uses    integer     not null default 1 check (max_uses > 0),
    use_count   integer     not null default 0 check (use_count >= 0),
    valid_until timestamptz,
    created_at  timestamptz not null default now(),
    expired_at  timestamptz,
    constraint invitation_codes_use_count_fits check (use_count <= max_uses)
) with (autovacuum_vacuum_scale_factor = 0.05);
create index invitation_codes_due on market.invitation_codes (valid_until, id) where status = 'active';
create index invitation_codes_owner on market.invitation_codes (owner_id) where owner_id is not null;
comment on table  market.invitation_codes is
    'Invitations, each good for a number of uses through market.use_invitation_code. Policy expire_invitation_codes marks those that lapsed.';
comment on column market.invitation_codes.id is 'Number of the code.';
comment on column market.invitation_codes.code is 'What the invited person types.';
comment on column market.invitation_codes.owner_id is 'Who invites; NULL: the marketplace itself.';
comment on column market.invitation_codes.status is
    'active, exhausted (all uses taken) or expired. A lapsed code may still say active: use_invitation_code looks at the time.';
comment on column market.invitation_codes.max_uses is 'How often it can be used.';
comment on column market.invitation_codes.use_count is 'How often it was used.';
comment on column market.invitation_codes.valid_until is 'Lapses at this time; NULL: never.';
comment on column market.invitation_codes.created_at is 'When it was made.';
comment on column market.invitation_codes.expired_at is 'When it was marked expired.';
comment on index  market.invitation_codes_pkey is 'By number.';
comment on index  market.invitation_codes_code_key is 'A code names one invitation.';
comment on index  market.invitation_codes_due is 'For expire_invitation_codes: active codes by the time they lapse.';
comment on index  market.invitation_codes_owner is 'A user''s invitations; keeps the deletion of a user cheap.';

create table market.point_grants (
    id         bigint      generated always as identity primary key,
    user_id    bigint      not null references market.users on delete cascade,
    amount     integer     not null check (amount > 0),
    remaining  integer     not null check (remaining >= 0),
    granted_at timestamptz not null default now(),
    expires_at timestamptz,
    expired_at timestamptz,
    constraint point_grants_remaining_fits check (remaining <= amount),
    constraint point_grants_expired_is_empty check (expired_at is null or remaining = 0)
) with (autovacuum_vacuum_scale_factor = 0.05);
create index point_grants_due on market.point_grants (expires_at, id) where remaining > 0;
create index point_grants_spendable on market.point_grants (user_id, expires_at, id) where remaining > 0;
create index point_grants_user on market.point_grants (user_id);
comment on table  market.point_grants is
    'Points given to users, and what is left of each gift. Whatever changes here is written to the ledger and the balance by triggers. Policy expire_points empties those that lapsed.';
comment on column market.point_grants.id is 'Number of the grant.';
comment on column market.point_grants.user_id is 'Whose points.';
comment on column market.point_grants.amount is 'Points given.';
comment on column market.point_grants.remaining is 'Points left; left out at INSERT, it is the whole amount.';
comment on column market.point_grants.granted_at is 'When they were given.';
comment on column market.point_grants.expires_at is 'Lapses at this time; NULL: never.';
comment on column market.point_grants.expired_at is 'When what was left lapsed and was taken off the balance.';
comment on index  market.point_grants_pkey is 'By number.';
comment on index  market.point_grants_due is 'For expire_points: grants with something left, by the time they lapse.';
comment on index  market.point_grants_spendable is 'For spend_points and point_balance: a user''s grants with something left, earliest expiry first.';
comment on index  market.point_grants_user is 'A user''s grants; keeps the deletion of a user cheap.';

-- No foreign keys: the ledger outlives the users and grants that it tells of.
create table market.point_entries (
    id         bigint      generated always as identity primary key,
    user_id    bigint      not null,
    grant_id   bigint      not null,
    delta      integer     not null check (delta <> 0),
    kind       text        not null check (kind in ('granted', 'spent', 'expired')),
    created_at timestamptz not null default now()
);
create index point_entries_user on market.point_entries (user_id, id);
comment on table  market.point_entries is
    'The ledger: every change of a grant''s remaining points. Written by triggers alone, never changed or deleted.';
comment on column market.point_entries.id is 'Number of the entry.';
comment on column market.point_entries.user_id is 'Whose points.';
comment on column market.point_entries.grant_id is 'The grant that changed.';
comment on column market.point_entries.delta is 'Points added (positive) or taken off (negative).';
comment on column market.point_entries.kind is
    'granted (more than before), expired (the grant lapsed) or spent (less than before for any other reason).';
comment on column market.point_entries.created_at is 'When.';
comment on index  market.point_entries_pkey is 'By number.';
comment on index  market.point_entries_user is 'A user''s entries in order.';

-- Updated with every grant, spending and expiry; no indexed column changes, so with room on the page it is HOT.
create table market.point_balances (
    user_id bigint primary key references market.users on delete cascade,
    balance bigint not null check (balance >= 0)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
comment on table  market.point_balances is
    'What each user has: always the sum of the grants'' remaining points and of the ledger''s deltas. Written by triggers alone. What can be spent now may be less: see market.point_balance.';
comment on column market.point_balances.user_id is 'The user.';
comment on column market.point_balances.balance is 'Points, those included that have lapsed and are not expired yet.';
comment on index  market.point_balances_pkey is 'One balance a user; the lock that spending takes first.';

create table market.tasks (
    id            bigint      generated always as identity primary key,
    poster_id     bigint      not null references market.users on delete cascade,
    taker_id      bigint      references market.users on delete set null,
    title         text        not null,
    status        text        not null default 'open' check (status in ('open', 'taken', 'completed', 'cancelled')),
    deadline      timestamptz,
    created_at    timestamptz not null default now(),
    completed_at  timestamptz,
    cancelled_at  timestamptz,
    cancel_reason text,
    files_go_at   timestamptz,
    constraint tasks_times_fit_status check (
        (completed_at is not null) = (status = 'completed')
        and (cancelled_at is not null) = (status = 'cancelled')
        and (files_go_at is not null) = (status in ('completed', 'cancelled'))
        and (completed_at is null or files_go_at = completed_at + interval '72 hours'))
) with (autovacuum_vacuum_scale_factor = 0.05);
create index tasks_due on market.tasks (deadline, id) where status = 'open';
create index tasks_poster on market.tasks (poster_id);
create index tasks_taker on market.tasks (taker_id) where taker_id is not null;
comment on table  market.tasks is
    'Tasks that people post and others take. Policy cancel_expired_tasks cancels open ones past their deadline; triggers queue the files of finished ones.';
comment on column market.tasks.id is 'Number of the task.';
comment on column market.tasks.poster_id is 'Who posted it.';
comment on column market.tasks.taker_id is 'Who took it.';
comment on column market.tasks.title is 'What is to be done.';
comment on column market.tasks.status is 'open, taken, completed or cancelled. open and taken are live: their files are kept.';
comment on column market.tasks.deadline is 'Lapses at this time if nobody took it by then; NULL: never.';
comment on column market.tasks.created_at is 'When it was posted.';
comment on column market.tasks.completed_at is 'When it was completed: filled by a trigger when left NULL, cleared in every other state.';
comment on column market.tasks.cancelled_at is 'When it was cancelled: filled by a trigger when left NULL, cleared in every other state.';
comment on column market.tasks.cancel_reason is 'Why it was cancelled; ''deadline'' when it lapsed.';
comment on column market.tasks.files_go_at is
    'From when on its files may be deleted: 72 hours after completion, at once when cancelled, NULL while live. Kept by a trigger.';
comment on index  market.tasks_pkey is 'By number.';
comment on index  market.tasks_due is 'For cancel_expired_tasks: open tasks by deadline.';
comment on index  market.tasks_poster is 'A user''s tasks; keeps the deletion of a user cheap.';
comment on index  market.tasks_taker is 'Tasks that a user took; keeps the deletion of a user cheap.';

-- A worker sets removed_at, which no index mentions: with room on the page that is HOT.
create table market.task_files (
    id          bigint      generated always as identity primary key,
    task_id     bigint      not null references market.tasks on delete cascade,
    storage     text        not null check (storage in ('public', 'private')),
    path        text        not null,
    bytes       bigint      check (bytes >= 0),
    uploaded_at timestamptz not null default now(),
    named_at    timestamptz not null default clock_timestamp(),
    removed_at  timestamptz
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);
create index task_files_task on market.task_files (task_id);
create index task_files_file on market.task_files (storage, lapse.path_digest(path));
comment on table  market.task_files is
    'Files of tasks. A row says that the file is needed while its task is live; triggers queue the file once it is not.';
comment on column market.task_files.id is 'Number of the row.';
comment on column market.task_files.task_id is 'The task.';
comment on column market.task_files.storage is 'Where the file is: ''public'' or ''private'', names in the worker''s configuration.';
comment on column market.task_files.path is 'Path below the storage''s root. Several rows may name one file.';
comment on column market.task_files.bytes is 'Size, as the application knows it.';
comment on column market.task_files.uploaded_at is 'When it was uploaded.';
comment on column market.task_files.named_at is
    'Since when the row names this file. Kept by a default and a trigger; leave it alone. A worker that took the file before then deleted an earlier one.';
comment on column market.task_files.removed_at is 'When a worker deleted the file, or found it missing.';
comment on index  market.task_files_pkey is 'By number.';
comment on index  market.task_files_task is 'A task''s files.';
comment on index  market.task_files_file is 'Who needs a file: by digest, since a long path does not fit an index entry.';
"""

DROP = """
drop table market.task_files, market.tasks, market.point_balances, market.point_entries, market.point_grants,
    market.invitation_codes, market.coupons, market.pending_users, market.users;
drop schema market;
"""


def upgrade() -> None:
    run_script(TABLES)


def downgrade() -> None:
    run_script(DROP)
