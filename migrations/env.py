"""Run migrations: everything in one transaction, one upgrade at a time.

The version table is ``lapse.pglapse_version``, so an application's own Alembic is never touched. It
lives in a schema that exists before the first revision and goes after the last, which is why this
file, and no revision, creates and drops schema ``lapse``. What comes before and after the revisions
is SQL that the server runs, so a script made with ``--sql`` does the same as a run online.
"""

from typing import Any

from alembic import context
from sqlalchemy import create_engine, pool

from pglapse.connect import connect
from pglapse.replaceable import run_script

VERSION = {"version_table": "pglapse_version", "version_table_schema": "lapse"}

# A database's own default may be another level, under which a run that waited for the lock would go on
# with what it saw before. An application's path may hold anything; revisions qualify every name.
SETTINGS = """
set transaction isolation level read committed;
set local search_path = pg_catalog, pg_temp;
"""

OPEN = """
do $$
declare
    v_owner   text;
    v_foreign text;
begin
    perform pg_advisory_xact_lock(7813263518091);

    if current_setting('server_version_num')::integer < 150000 then
        raise exception 'pglapse needs PostgreSQL 15 or newer, and this is %',
                        current_setting('server_version')
              using errcode = 'feature_not_supported';
    end if;

    select pg_get_userbyid(n.nspowner) into v_owner from pg_namespace as n where n.nspname = 'lapse';
    if not found then
        create schema lapse;
        comment on schema lapse is
            'pglapse, the engine: policies that let rows lapse, their runs, the queue of files to delete.';
        return;
    end if;

    if v_owner <> current_user then
        raise exception 'schema lapse belongs to role %, and this is role %', v_owner, current_user
              using errcode = 'insufficient_privilege',
                    hint = format('Connect as %I, or set PGOPTIONS=''-c role=%s''.', v_owner, v_owner);
    end if;

    if to_regclass('lapse.pglapse_version') is null then
        select string_agg(o.name, ', ') into v_foreign
          from (select pg_describe_object(d.classid, d.objid, d.objsubid) as name
                  from pg_depend as d
                 where d.refclassid = 'pg_namespace'::regclass and d.refobjid = 'lapse'::regnamespace
                 order by name limit 3) as o;
        if v_foreign is not null then
            raise exception 'schema lapse is not pglapse''s: it holds %', v_foreign
                  using errcode = 'duplicate_schema',
                        hint = 'pglapse keeps its engine in a schema of this name. Rename yours first: '
                               'alter schema lapse rename to ...';
        end if;
    end if;
end;
$$;
"""

# A schema lapse that was there before, empty, has not our comment and stays.
CLOSE = """
do $$
declare
    v_installed boolean := false;
begin
    if to_regclass('lapse.pglapse_version') is not null then
        select exists (select from lapse.pglapse_version) into v_installed;
        if v_installed then
            revoke all on lapse.pglapse_version from public;
            comment on table lapse.pglapse_version is
                'Revisions of pglapse installed here; kept by Alembic. One that others need has no row.';
            comment on column lapse.pglapse_version.version_num is 'The revision.';
            return;
        end if;
        drop table lapse.pglapse_version;
    end if;
    if obj_description('lapse'::regnamespace, 'pg_namespace') like 'pglapse, the engine:%' then
        drop schema lapse;
    end if;
end;
$$;
"""


def offline() -> None:
    """Write the script that does the same; psql runs it as one transaction."""
    context.configure(dialect_name="postgresql", literal_binds=True, transactional_ddl=True, **VERSION)
    with context.begin_transaction():
        migrate()


def online() -> None:
    """Migrate the database that `connect` reaches; all of it or nothing."""
    done: list[str] = []

    def note(*, step: Any, **_: Any) -> None:
        verb = "installed" if step.is_upgrade else "removed"
        done.append(f"{verb} {step.up_revision_id}: {step.up_revision.doc}")

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=pool.NullPool)
    with engine.begin() as connection:
        context.configure(connection=connection, on_version_apply=note, **VERSION)
        if context.get_context().opts.get("dont_mutate"):  # `alembic current` only looks
            context.run_migrations()
        else:
            migrate()
    for line in done:  # not before it is committed
        context.config.print_stdout("%s", line)


def migrate() -> None:
    """What came before, the revisions, what comes after."""
    for before in (SETTINGS, OPEN):
        run_script(before)
    context.run_migrations()
    run_script(CLOSE)


if context.is_offline_mode():
    offline()
else:
    online()
