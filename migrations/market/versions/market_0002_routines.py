"""The marketplace's routines and triggers, its policies, and its word on which files are needed.

Revision ID: market_0002
Revises: market_0001
"""

from pglapse.replaceable import apply, names, run_script

revision = "market_0002"
down_revision = "market_0001"
branch_labels = None
depends_on = None

REGISTER = """
revoke all on all tables in schema market from public;
revoke all on all sequences in schema market from public;
revoke all on all routines in schema market from public;

select lapse.register_file_source('market', 'market.files_in_use', 'market.files_removed', 'market.files_known',
                                  'market.files_listed');

select lapse.create_policy(
    'expire_coupons', 'market.expire_coupons', interval '5 minutes',
    'Coupons whose time is over become expired.',
    p_target => 'market.coupons', p_key_columns => array['id'], p_due_column => 'valid_until',
    p_predicate => $$status = 'active'$$);

select lapse.create_policy(
    'expire_invitation_codes', 'market.expire_invitation_codes', interval '5 minutes',
    'Invitation codes whose time is over become expired.',
    p_target => 'market.invitation_codes', p_key_columns => array['id'], p_due_column => 'valid_until',
    p_predicate => $$status = 'active'$$);

select lapse.create_policy(
    'expire_points', 'market.expire_points', interval '5 minutes',
    'What is left of lapsed points leaves the balance, with an entry in the ledger.',
    p_target => 'market.point_grants', p_key_columns => array['id'], p_due_column => 'expires_at',
    p_predicate => 'remaining > 0');

select lapse.create_policy(
    'cancel_expired_tasks', 'market.cancel_expired_tasks', interval '1 minute',
    'Open tasks past their deadline become cancelled; their files are queued.',
    p_target => 'market.tasks', p_key_columns => array['id'], p_due_column => 'deadline',
    p_predicate => $$status = 'open'$$);

select lapse.create_policy(
    'purge_pending_users', 'market.purge_pending_users', interval '1 day',
    'Sign-ups that were never verified are deleted.',
    p_at_time => time '03:00', p_time_zone => 'UTC',
    p_target => 'market.pending_users', p_key_columns => array['id'], p_due_column => 'expires_at',
    p_predicate => 'verified_at is null');
"""

SESSIONS_AND_CACHE = """
select lapse.create_policy(
    'purge_sessions', 'market.purge_sessions', interval '15 minutes',
    'Lapsed sessions that nobody asked for any more are deleted.',
    p_target => 'market.sessions', p_key_columns => array['token_hash'], p_due_column => 'expires_at');

select lapse.create_policy(
    'purge_cache', 'market.purge_cache', interval '15 minutes',
    'Lapsed cache entries that nobody asked for any more are deleted.',
    p_target => 'market.cache_entries', p_key_columns => array['key'], p_due_column => 'expires_at');
"""

# A batch that changes chats takes its turn with everybody who commits such a change: 2 s, for slow disks.
CHATS = """
select lapse.create_policy(
    'assign_waiting_chats', 'market.assign_waiting_chats', interval '30 seconds',
    'Waiting chats go to agents who have room, first come first served.',
    p_batch_size => 100, p_lock_timeout => interval '2 s',
    p_target => 'market.chats', p_key_columns => array['id'], p_due_column => 'opened_at',
    p_predicate => $$status = 'waiting'$$);

select lapse.create_policy(
    'warn_idle_chats', 'market.warn_idle_chats', interval '30 seconds',
    'Users are warned when nobody has written for a minute.',
    p_batch_size => 100, p_lock_timeout => interval '2 s',
    p_target => 'market.chats', p_key_columns => array['id'], p_due_column => 'warn_at',
    p_predicate => $$status = 'active' and warned_at is null$$);

select lapse.create_policy(
    'end_idle_chats', 'market.end_idle_chats', interval '30 seconds',
    'Chats end when nobody has written for two minutes; their slots are given away at once.',
    p_batch_size => 100, p_lock_timeout => interval '2 s',
    p_target => 'market.chats', p_key_columns => array['id'], p_due_column => 'end_at',
    p_predicate => $$status = 'active'$$);

select lapse.create_policy(
    'purge_inactive_chats', 'market.purge_inactive_chats', interval '1 day',
    'Chats in which nothing happened for 30 days are deleted, with their messages.',
    p_at_time => time '02:00', p_time_zone => 'UTC', p_batch_size => 100, p_lock_timeout => interval '2 s',
    p_target => 'market.chats', p_key_columns => array['id'], p_due_column => 'purge_at');

select lapse.create_policy(
    'prune_chat_events', 'market.prune_chat_events', interval '1 hour',
    'Events of chats are deleted after a week.',
    p_target => 'market.chat_events', p_key_columns => array['id'], p_due_column => 'expires_at');
"""

REGISTER_UPLOADS_AND_STATISTICS = """
select lapse.create_policy(
    'expire_temp_uploads', 'market.expire_temp_uploads', interval '1 hour',
    'Uploads that no task took in time are deleted; their files are queued.',
    p_target => 'market.temp_uploads', p_key_columns => array['id'], p_due_column => 'expires_at');

select lapse.create_policy(
    'fold_user_statistics', 'market.fold_user_statistics', interval '1 minute',
    'Changes in the statistics of users are added up.',
    p_batch_size => 10000,
    p_target => 'market.user_statistics_deltas', p_key_columns => array['id'], p_due_column => 'changed_at');

select lapse.create_policy(
    'repair_user_statistics', 'market.repair_user_statistics', interval '1 day',
    'Statistics of users that are not what counting gives are put right.',
    p_at_time => time '03:30', p_time_zone => 'UTC');

select lapse.create_policy(
    'refresh_expert_statistics', 'market.refresh_expert_statistics', interval '1 day',
    'Statistics of experts of whom something changed are worked out anew.',
    p_at_time => time '04:00', p_time_zone => 'UTC',
    p_target => 'market.expert_changes', p_key_columns => array['id'], p_due_column => 'changed_at');

select lapse.create_policy(
    'requeue_task_files', 'market.requeue_task_files', interval '7 days',
    'Files of finished tasks that are neither queued nor removed are queued.',
    p_at_time => time '04:30', p_time_zone => 'UTC');
"""

# Policies are found by their step, so that renamed and added ones go too.
DROP = """
select lapse.drop_policy(p.name) from lapse.policy as p where p.step like 'market.%' order by p.name;
select lapse.unregister_file_source(s.name) from lapse.file_source as s where s.in_use like 'market.%';

do $$
declare
    v_command text;
begin
    for v_command in
        select format('drop view if exists market.%I cascade', c.relname)
          from pg_catalog.pg_class as c
         where c.relnamespace = 'market'::regnamespace and c.relkind = 'v'
        union all
        select format('drop trigger %I on market.%I', t.tgname, c.relname)
          from pg_catalog.pg_trigger as t
          join pg_catalog.pg_class as c on c.oid = t.tgrelid
         where c.relnamespace = 'market'::regnamespace and not t.tgisinternal
        union all
        select format('drop routine %s', p.oid::regprocedure)
          from pg_catalog.pg_proc as p
         where p.pronamespace = 'market'::regnamespace
    loop
        execute v_command;
    end loop;
end;
$$;
"""


def upgrade() -> None:
    apply("market_0002", *names("market_0002"))
    run_script(REGISTER)
    run_script(SESSIONS_AND_CACHE)
    run_script(CHATS)
    run_script(REGISTER_UPLOADS_AND_STATISTICS)


def downgrade() -> None:
    run_script(DROP)
