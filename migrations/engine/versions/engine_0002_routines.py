"""The engine's routines, triggers and views, and the policies that keep its own tables small.

Revision ID: engine_0002
Revises: engine_0001
"""

from pglapse.replaceable import apply, names, run_script

revision = "engine_0002"
down_revision = "engine_0001"
branch_labels = None
depends_on = None

# EXECUTE is PUBLIC's by default; who may call what is lapse.grant_…'s business.
REVOKE = """
revoke all on all routines in schema lapse from public;
"""


def upgrade() -> None:
    apply("engine_0002", *names("engine_0002"))
    run_script(REVOKE)


def downgrade() -> None:
    run_script(DROP)


DROP = """
do $$
declare
    v_command text;
begin
    -- Views first, then triggers, then every routine but the one that an index of engine_0001 needs.
    for v_command in
        select format('drop view lapse.%I cascade', c.relname)
          from pg_catalog.pg_class as c
         where c.relnamespace = 'lapse'::regnamespace and c.relkind = 'v'
        union all
        select format('drop trigger %I on lapse.%I', t.tgname, c.relname)
          from pg_catalog.pg_trigger as t
          join pg_catalog.pg_class as c on c.oid = t.tgrelid
         where c.relnamespace = 'lapse'::regnamespace and not t.tgisinternal
        union all
        select format('drop routine %s', p.oid::regprocedure)
          from pg_catalog.pg_proc as p
         where p.pronamespace = 'lapse'::regnamespace and p.proname <> 'path_digest'
    loop
        execute v_command;
    end loop;
end;
$$;
"""
