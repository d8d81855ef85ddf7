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

select lapse.register_file_source('market', 'market.files_in_use', 'market.files_removed');

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

# Policies are found by their step, so that renamed and added ones go too.
DROP = """
select lapse.drop_policy(p.name) from lapse.policy as p where p.step like 'market.%' order by p.name;
select lapse.unregister_file_source(s.name) from lapse.file_source as s where s.in_use like 'market.%';

do $$
declare
    v_command text;
begin
    for v_command in
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


def downgrade() -> None:
    run_script(DROP)
