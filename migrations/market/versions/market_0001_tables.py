"""The marketplace's tables.

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
create index tasks_finished on market.tasks (files_go_at, id) where files_go_at is not null;
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
comment on index  market.tasks_finished is 'For requeue_task_files: finished tasks by the time from when on their files may go.';
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

# Reads extend a sliding session at most once a minute, which touches an indexed column and so is no HOT update;
# a second, unindexed time would make it one and was measured not to be worth it: docs/decisions/0042.
SESSIONS_AND_CACHE = """
create table market.sessions (
    token_hash     bytea       primary key,
    principal_kind text        not null check (principal_kind in ('user', 'agent', 'admin')),
    principal_id   bigint      not null,
    data           jsonb       not null default '{}',
    created_at     timestamptz not null default now(),
    expires_at     timestamptz not null,
    idle_timeout   interval,
    ends_at        timestamptz,
    constraint sessions_token_hash_fits check (octet_length(token_hash) between 1 and 128),
    constraint sessions_idle_timeout_fits check (idle_timeout between interval '2 minutes' and interval '366 days'),
    constraint sessions_expire_before_they_end check (expires_at <= ends_at)
) with (autovacuum_vacuum_scale_factor = 0.05);
create index sessions_due on market.sessions (expires_at, token_hash);
comment on table  market.sessions is
    'Sessions of users, agents and administrators. market.get_session never returns a lapsed one; policy purge_sessions deletes those that nobody asks for.';
comment on column market.sessions.token_hash is 'Hash of the token that the client shows; 1 to 128 bytes.';
comment on column market.sessions.principal_kind is 'Whose session: user, agent or admin.';
comment on column market.sessions.principal_id is 'Which one: market.users.id, market.agents.id, or the application''s own number of an administrator. Not checked.';
comment on column market.sessions.data is 'Whatever the application keeps with it.';
comment on column market.sessions.created_at is 'When it was opened.';
comment on column market.sessions.expires_at is 'Lapses at this time: at this time it is no longer returned.';
comment on column market.sessions.idle_timeout is
    'A sliding session: reads move expires_at to so long from then on, at most once a minute. NULL: it does not slide.';
comment on column market.sessions.ends_at is 'No read moves expires_at beyond this time; NULL: no such limit.';
comment on index  market.sessions_pkey is 'One session a token; what market.get_session looks in.';
comment on index  market.sessions_due is 'For purge_sessions: sessions by the time they lapse.';

create unlogged table market.cache_entries (
    key        text        primary key,
    value      jsonb       not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    constraint cache_entries_key_fits check (octet_length(key) between 1 and 1000),
    constraint cache_entries_expire check (isfinite(expires_at))
) with (autovacuum_vacuum_scale_factor = 0.05);
create index cache_entries_due on market.cache_entries (expires_at, key);
comment on table  market.cache_entries is
    'A cache: unlogged, so it is empty after a crash and on a standby. Every entry has an expiry. market.get_cache never returns a lapsed one; policy purge_cache deletes those that nobody asks for.';
comment on column market.cache_entries.key is 'What it is asked for by; 1 to 1,000 bytes.';
comment on column market.cache_entries.value is 'What is kept.';
comment on column market.cache_entries.created_at is 'When it was last put there.';
comment on column market.cache_entries.expires_at is 'Lapses at this time; no entry is without end.';
comment on index  market.cache_entries_pkey is 'One entry a key; what market.get_cache looks in.';
comment on index  market.cache_entries_due is 'For purge_cache: entries by the time they lapse.';
"""

# Times that a policy waits for are stored, since an index can't hold timestamptz + interval; by way of UTC
# the sum is immutable, and the same in every session. Every message moves them, so no such update is HOT.
CHATS = """
create table market.agents (
    id           bigint      generated always as identity primary key,
    display_name text        not null,
    online       boolean     not null default false,
    max_chats    integer     not null default 3,
    last_chat_at timestamptz,
    created_at   timestamptz not null default now(),
    constraint agents_max_chats_is_not_negative check (max_chats >= 0)
) with (fillfactor = 70);
comment on table  market.agents is 'Support agents, who chat with users.';
comment on column market.agents.id is 'Number of the agent.';
comment on column market.agents.display_name is 'What users see.';
comment on column market.agents.online is 'Whether new chats go to this agent. Going offline takes none away.';
comment on column market.agents.max_chats is 'How many chats at a time; 0: none.';
comment on column market.agents.last_chat_at is 'When the agent was last given a chat; of two with equally many, the one who waited longer is next.';
comment on column market.agents.created_at is 'When the agent joined.';
comment on index  market.agents_pkey is 'By number.';

create table market.chats (
    id               bigint      generated always as identity primary key,
    user_id          bigint      not null references market.users on delete cascade,
    agent_id         bigint      references market.agents on delete set null,
    status           text        not null default 'waiting' check (status in ('waiting', 'active', 'ended')),
    opened_at        timestamptz not null default now(),
    assigned_at      timestamptz,
    last_activity_at timestamptz not null default now(),
    warned_at        timestamptz,
    ended_at         timestamptz,
    end_reason       text,
    warn_at          timestamptz generated always as
                     ((last_activity_at at time zone 'UTC' + interval '1 minute') at time zone 'UTC') stored,
    end_at           timestamptz generated always as
                     ((last_activity_at at time zone 'UTC' + interval '2 minutes') at time zone 'UTC') stored,
    purge_at         timestamptz generated always as
                     ((last_activity_at at time zone 'UTC' + interval '720 hours') at time zone 'UTC') stored,
    constraint chats_fit_status check (
        (ended_at is not null) = (status = 'ended')
        and (end_reason is null or status = 'ended')
        and (status <> 'waiting' or (agent_id is null and assigned_at is null and warned_at is null)))
) with (autovacuum_vacuum_scale_factor = 0.05);
create index chats_waiting on market.chats (opened_at, id) where status = 'waiting';
create index chats_warn_due on market.chats (warn_at, id) where status = 'active' and warned_at is null;
create index chats_end_due on market.chats (end_at, id) where status = 'active';
create index chats_purge_due on market.chats (purge_at, id);
create index chats_agent on market.chats (agent_id, status) where agent_id is not null;
create index chats_user on market.chats (user_id);
comment on table  market.chats is
    'Support chats. Waiting ones are given to agents at once where there is room, else by policy assign_waiting_chats; idle ones are warned and ended; whatever happens is told in market.chat_events.';
comment on column market.chats.id is 'Number of the chat.';
comment on column market.chats.user_id is 'Who asks for support.';
comment on column market.chats.agent_id is 'Who gives it; NULL while waiting, or when the agent is gone.';
comment on column market.chats.status is 'waiting (for an agent), active or ended.';
comment on column market.chats.opened_at is 'When the user came; the earliest is served first.';
comment on column market.chats.assigned_at is 'When an agent was found: filled by a trigger when left NULL, cleared while waiting.';
comment on column market.chats.last_activity_at is 'When somebody last wrote, or the chat was assigned: from then on it is idle.';
comment on column market.chats.warned_at is 'When the user was warned that the chat will end. Cleared by a trigger when somebody writes.';
comment on column market.chats.ended_at is 'When it ended: filled by a trigger when left NULL.';
comment on column market.chats.end_reason is 'Why it ended; ''idle'' when nobody wrote.';
comment on column market.chats.warn_at is 'One minute after the last activity.';
comment on column market.chats.end_at is 'Two minutes after the last activity.';
comment on column market.chats.purge_at is '30 days, or 720 hours, after the last activity.';
comment on index  market.chats_pkey is 'By number.';
comment on index  market.chats_waiting is 'For assign_waiting_chats: waiting chats, first come first.';
comment on index  market.chats_warn_due is 'For warn_idle_chats: active chats not warned yet, by the time of their warning.';
comment on index  market.chats_end_due is 'For end_idle_chats: active chats by the time they end.';
comment on index  market.chats_purge_due is 'For purge_inactive_chats: chats by the time they go.';
comment on index  market.chats_agent is 'How many chats an agent has; keeps the deletion of an agent cheap.';
comment on index  market.chats_user is 'A user''s chats; keeps the deletion of a user cheap.';

create table market.chat_messages (
    id          bigint      generated always as identity primary key,
    chat_id     bigint      not null references market.chats on delete cascade,
    author_kind text        not null check (author_kind in ('user', 'agent', 'system')),
    body        text        not null,
    created_at  timestamptz not null default now(),
    constraint chat_messages_body_is_not_empty check (body <> '')
);
create index chat_messages_chat on market.chat_messages (chat_id, id);
comment on table  market.chat_messages is 'What was written in chats. Goes with the chat.';
comment on column market.chat_messages.id is 'Number of the message.';
comment on column market.chat_messages.chat_id is 'The chat.';
comment on column market.chat_messages.author_kind is 'user, agent or system. Only what people write keeps a chat from being idle.';
comment on column market.chat_messages.body is 'The text.';
comment on column market.chat_messages.created_at is 'When it was written.';
comment on index  market.chat_messages_pkey is 'By number.';
comment on index  market.chat_messages_chat is 'A chat''s messages in order.';

-- No foreign keys: events outlive the chats that they tell of.
create table market.chat_events (
    id          bigint      generated always as identity primary key,
    kind        text        not null check (kind in ('assigned', 'warned', 'ended', 'requeued')),
    chat_id     bigint      not null,
    user_id     bigint      not null,
    agent_id    bigint,
    reason      text,
    happened_at timestamptz not null,
    expires_at  timestamptz not null default now() + interval '168 hours'
) with (autovacuum_vacuum_scale_factor = 0.05);
create index chat_events_due on market.chat_events (expires_at, id);
comment on table  market.chat_events is
    'What happened to chats, also sent by NOTIFY market_chat_events at commit. Numbers are given out in the order of commits, so whoever saw number n catches up with market.chat_events_after(n). Policy prune_chat_events deletes them after a week.';
comment on column market.chat_events.id is 'Number of the event, in the order of commits; numbers may be missing.';
comment on column market.chat_events.kind is 'assigned, warned, ended, or requeued: its agent is gone and it waits again.';
comment on column market.chat_events.chat_id is 'The chat.';
comment on column market.chat_events.user_id is 'The user in it.';
comment on column market.chat_events.agent_id is 'The agent in it; for requeued, the one who is gone.';
comment on column market.chat_events.reason is 'Why a chat ended: the first 100 characters of it; ''deleted'' where the row went.';
comment on column market.chat_events.happened_at is 'When.';
comment on column market.chat_events.expires_at is 'A week after it was written: it is deleted then.';
comment on index  market.chat_events_pkey is 'In the order of commits.';
comment on index  market.chat_events_due is 'For prune_chat_events: events by the time they go.';
"""

# Uploads before their task exists; reviews and what is counted of everybody; experts.
UPLOADS_AND_STATISTICS = """
create table market.temp_uploads (
    id          bigint      generated always as identity primary key,
    user_id     bigint      not null references market.users on delete cascade,
    storage     text        not null check (storage in ('public', 'private')),
    path        text        not null,
    bytes       bigint      check (bytes >= 0),
    uploaded_at timestamptz not null default now(),
    expires_at  timestamptz not null,
    named_at    timestamptz not null default clock_timestamp(),
    removed_at  timestamptz
) with (autovacuum_vacuum_scale_factor = 0.05);
create unique index temp_uploads_file on market.temp_uploads (storage, lapse.path_digest(path));
create index temp_uploads_due on market.temp_uploads (expires_at, id);
create index temp_uploads_user on market.temp_uploads (user_id);
comment on table  market.temp_uploads is
    'Files uploaded before their task exists. market.create_task turns them into files of the task; policy expire_temp_uploads deletes the rest, and triggers queue their files.';
comment on column market.temp_uploads.id is 'Number of the upload.';
comment on column market.temp_uploads.user_id is 'Who uploaded it: nobody else''s task can have it.';
comment on column market.temp_uploads.storage is 'Where the file is: ''public'' or ''private'', names in the worker''s configuration.';
comment on column market.temp_uploads.path is 'Path below the storage''s root. It stays the same when a task takes the upload.';
comment on column market.temp_uploads.bytes is 'Size, as the application knows it.';
comment on column market.temp_uploads.uploaded_at is 'When it was uploaded.';
comment on column market.temp_uploads.expires_at is
    'Lapses at this time; left NULL at INSERT, 24 hours after uploaded_at. ''infinity'': never.';
comment on column market.temp_uploads.named_at is
    'Since when the row names this file. Kept by a default and a trigger; leave it alone. A worker that took the file before then deleted an earlier one.';
comment on column market.temp_uploads.removed_at is
    'When a worker deleted the file, or found it missing: because it was queued by hand, or had lapsed.';
comment on index  market.temp_uploads_pkey is 'By number.';
comment on index  market.temp_uploads_file is 'One upload a file: by digest, since a long path does not fit an index entry.';
comment on index  market.temp_uploads_due is 'For expire_temp_uploads: uploads by the time they lapse.';
comment on index  market.temp_uploads_user is 'A user''s uploads; keeps the deletion of a user cheap.';

create table market.reviews (
    id         bigint      generated always as identity primary key,
    task_id    bigint      not null references market.tasks on delete cascade,
    author_id  bigint      not null references market.users on delete cascade,
    subject_id bigint      not null references market.users on delete cascade,
    rating     smallint    not null,
    created_at timestamptz not null default now(),
    constraint reviews_rating_is_1_to_5 check (rating between 1 and 5),
    constraint reviews_are_of_others check (author_id <> subject_id)
);
create index reviews_task on market.reviews (task_id);
create index reviews_author on market.reviews (author_id);
create index reviews_subject on market.reviews (subject_id);
comment on table  market.reviews is 'What people say of each other after a task. market.user_statistics adds them up.';
comment on column market.reviews.id is 'Number of the review.';
comment on column market.reviews.task_id is 'The task it is about.';
comment on column market.reviews.author_id is 'Who rates.';
comment on column market.reviews.subject_id is 'Who is rated.';
comment on column market.reviews.rating is '1 (poor) to 5 (excellent).';
comment on column market.reviews.created_at is 'When.';
comment on index  market.reviews_pkey is 'By number.';
comment on index  market.reviews_task is 'A task''s reviews; keeps the deletion of a task cheap.';
comment on index  market.reviews_author is 'What a user wrote; keeps the deletion of a user cheap.';
comment on index  market.reviews_subject is 'What others wrote of a user.';

-- No foreign keys on what is counted: a check for each would lock the user's row, and sums of
-- users who are gone come to nothing by themselves. No check against negative numbers either: changes
-- are folded in the order of their time, which is not always that of their commits.
create table market.user_statistics_deltas (
    id              bigint      generated always as identity,
    user_id         bigint      not null,
    tasks_posted    bigint      not null default 0,
    tasks_taken     bigint      not null default 0,
    tasks_completed bigint      not null default 0,
    tasks_cancelled bigint      not null default 0,
    reviews         bigint      not null default 0,
    rating_sum      bigint      not null default 0,
    changed_at      timestamptz not null default now(),
    primary key (changed_at, id)
) with (autovacuum_vacuum_scale_factor = 0.05);
create index user_statistics_deltas_user on market.user_statistics_deltas (user_id);
comment on table  market.user_statistics_deltas is
    'What changed in the statistics of users since policy fold_user_statistics was here. Written by triggers alone: nobody ever waits for anybody to add a row.';
comment on column market.user_statistics_deltas.id is 'Number of the change.';
comment on column market.user_statistics_deltas.user_id is 'Whose statistics.';
comment on column market.user_statistics_deltas.tasks_posted is 'To be added to what market.user_statistics says.';
comment on column market.user_statistics_deltas.tasks_taken is 'To be added.';
comment on column market.user_statistics_deltas.tasks_completed is 'To be added.';
comment on column market.user_statistics_deltas.tasks_cancelled is 'To be added.';
comment on column market.user_statistics_deltas.reviews is 'To be added.';
comment on column market.user_statistics_deltas.rating_sum is 'To be added.';
comment on column market.user_statistics_deltas.changed_at is 'When the transaction of the change began.';
comment on index  market.user_statistics_deltas_pkey is 'For fold_user_statistics: the oldest first.';
comment on index  market.user_statistics_deltas_user is 'For market.user_statistics: what is not folded yet of a user.';

create table market.user_statistics_folded (
    user_id         bigint      primary key,
    tasks_posted    bigint      not null default 0,
    tasks_taken     bigint      not null default 0,
    tasks_completed bigint      not null default 0,
    tasks_cancelled bigint      not null default 0,
    reviews         bigint      not null default 0,
    rating_sum      bigint      not null default 0,
    updated_at      timestamptz not null default now()
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
comment on table  market.user_statistics_folded is
    'The statistics of users as of the last fold; market.user_statistics adds what changed since. Written by policy fold_user_statistics alone.';
comment on column market.user_statistics_folded.user_id is 'The user.';
comment on column market.user_statistics_folded.tasks_posted is 'See market.user_statistics.';
comment on column market.user_statistics_folded.tasks_taken is 'See market.user_statistics.';
comment on column market.user_statistics_folded.tasks_completed is 'See market.user_statistics.';
comment on column market.user_statistics_folded.tasks_cancelled is 'See market.user_statistics.';
comment on column market.user_statistics_folded.reviews is 'See market.user_statistics.';
comment on column market.user_statistics_folded.rating_sum is 'See market.user_statistics.';
comment on column market.user_statistics_folded.updated_at is 'Time of the last change in it.';
comment on index  market.user_statistics_folded_pkey is 'One row a user.';

create table market.experts (
    user_id bigint primary key references market.users on delete cascade,
    bio     text
);
comment on table  market.experts is 'Users who are invited to tasks for what they know.';
comment on column market.experts.user_id is 'The user.';
comment on column market.experts.bio is 'What they say of themselves.';
comment on index  market.experts_pkey is 'One row a user.';

create table market.expert_invitations (
    id           bigint      generated always as identity primary key,
    expert_id    bigint      not null references market.experts on delete cascade,
    task_id      bigint      not null references market.tasks on delete cascade,
    invited_at   timestamptz not null default now(),
    responded_at timestamptz,
    constraint expert_invitations_response_follows check (responded_at >= invited_at)
);
create index expert_invitations_expert on market.expert_invitations (expert_id);
create index expert_invitations_task on market.expert_invitations (task_id);
comment on table  market.expert_invitations is 'Experts who were asked to take a task.';
comment on column market.expert_invitations.id is 'Number of the invitation.';
comment on column market.expert_invitations.expert_id is 'Who was asked.';
comment on column market.expert_invitations.task_id is 'For which task.';
comment on column market.expert_invitations.invited_at is 'When.';
comment on column market.expert_invitations.responded_at is 'When the expert answered; NULL: not yet.';
comment on index  market.expert_invitations_pkey is 'By number.';
comment on index  market.expert_invitations_expert is 'An expert''s invitations.';
comment on index  market.expert_invitations_task is 'A task''s invitations; keeps the deletion of a task cheap.';

create table market.expert_statistics (
    user_id         bigint      primary key references market.experts on delete cascade,
    median_response interval,
    response_rate   numeric,
    completion_rate numeric,
    average_rating  numeric,
    refreshed_at    timestamptz not null
) with (fillfactor = 70);
comment on table  market.expert_statistics is
    'How experts do. Policy refresh_expert_statistics works out anew those of whom something changed.';
comment on column market.expert_statistics.user_id is 'The expert.';
comment on column market.expert_statistics.median_response is 'Half of the answers took less, half more; NULL: no answer yet.';
comment on column market.expert_statistics.response_rate is 'Share of the invitations that were answered, 0 to 1; NULL: no invitation yet.';
comment on column market.expert_statistics.completion_rate is 'Share of the tasks taken that are completed, 0 to 1; NULL: none taken yet.';
comment on column market.expert_statistics.average_rating is 'Mean of the ratings, 1 to 5; NULL: no review yet.';
comment on column market.expert_statistics.refreshed_at is 'When this was worked out.';
comment on index  market.expert_statistics_pkey is 'One row an expert.';

-- One row a change and never one a user: whoever marks what is marked already would find the mark
-- gone when a refresh that began before commits.
create table market.expert_changes (
    id         bigint      generated always as identity,
    expert_id  bigint      not null,
    changed_at timestamptz not null default now(),
    primary key (changed_at, id)
) with (autovacuum_vacuum_scale_factor = 0.05);
create index expert_changes_expert on market.expert_changes (expert_id);
comment on table  market.expert_changes is
    'Experts of whom something changed since refresh_expert_statistics was here. Written by triggers and by fold_user_statistics.';
comment on column market.expert_changes.id is 'Number of the change.';
comment on column market.expert_changes.expert_id is 'Whose statistics are to be worked out anew.';
comment on column market.expert_changes.changed_at is 'When the transaction of the change began.';
comment on index  market.expert_changes_pkey is 'For refresh_expert_statistics: the oldest first.';
comment on index  market.expert_changes_expert is 'All marks of an expert, which one refresh settles.';

create table market.backstop_positions (
    policy   text        primary key,
    after_at timestamptz not null default '-infinity',
    after_id bigint      not null default -9223372036854775808
);
comment on table  market.backstop_positions is
    'How far repair_user_statistics and requeue_task_files have come in a pass that one run was too short for.';
comment on column market.backstop_positions.policy is 'The policy.';
comment on column market.backstop_positions.after_at is 'Everything due up to this time has been looked at, and of this time itself';
comment on column market.backstop_positions.after_id is 'everything up to this number.';
comment on index  market.backstop_positions_pkey is 'One row a policy.';
"""

DROP_UPLOADS_AND_STATISTICS = """
drop table market.backstop_positions, market.expert_changes, market.expert_statistics, market.expert_invitations,
    market.experts, market.user_statistics_folded, market.user_statistics_deltas, market.reviews, market.temp_uploads;
"""

DROP = """
drop table market.chat_events, market.chat_messages, market.chats, market.agents;
drop table market.cache_entries, market.sessions;
drop table market.task_files, market.tasks, market.point_balances, market.point_entries, market.point_grants,
    market.invitation_codes, market.coupons, market.pending_users, market.users;
drop schema market;
"""


def upgrade() -> None:
    run_script(TABLES)
    run_script(SESSIONS_AND_CACHE)
    run_script(CHATS)
    run_script(UPLOADS_AND_STATISTICS)


def downgrade() -> None:
    run_script(DROP_UPLOADS_AND_STATISTICS)
    run_script(DROP)
