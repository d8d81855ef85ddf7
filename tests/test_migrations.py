"""Installing, removing, and what is left: with pg_cron here, elsewhere and nowhere."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pglapse import cluster, migrate
from tests.support import databases
from tests.support.catalog import catalog, rows
from tests.support.install import ROOT, alembic, psql, started

SCRIPTS = ScriptDirectory.from_config(migrate.configuration())
STEPS = [script.revision for script in reversed(list(SCRIPTS.walk_revisions("base", "heads")))]

# What a user's database may hold before pglapse comes: all of it must be there, unchanged, when it has gone.
USED = """
create table public.alembic_version (version_num varchar(32) primary key);
insert into public.alembic_version values ('theirs');
create schema shop;
comment on schema shop is 'Sells things.';
create table shop.orders (id bigint generated always as identity primary key, note text default 'none');
create view shop.notes as select note from shop.orders;
create function shop.total() returns bigint language sql as 'select count(*) from shop.orders';
create publication everything for all tables;
alter default privileges grant select on tables to public;
alter default privileges grant all on sequences to public;
alter default privileges in schema shop grant execute on routines to public;
"""

PUBLIC_RIGHTS = """
select 'table ' || c.oid::regclass || ' ' || a.privilege_type
  from pg_class as c cross join lateral aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) as a
 where c.relnamespace in (select oid from pg_namespace where nspname in ('lapse', 'market')) and a.grantee = 0
   and c.relkind in ('r', 'v', 'm', 'p', 'f', 'S')
union all
select 'column ' || c.attrelid::regclass || '.' || c.attname || ' ' || a.privilege_type
  from pg_attribute as c cross join lateral aclexplode(c.attacl) as a join pg_class as r on r.oid = c.attrelid
 where r.relnamespace in (select oid from pg_namespace where nspname in ('lapse', 'market')) and a.grantee = 0
union all
select 'routine ' || p.oid::regprocedure
  from pg_proc as p cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as a
 where p.pronamespace in (select oid from pg_namespace where nspname in ('lapse', 'market')) and a.grantee = 0
union all
select 'schema ' || n.nspname || ' ' || a.privilege_type
  from pg_namespace as n cross join lateral aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) as a
 where n.nspname in ('lapse', 'market') and a.grantee = 0
"""

WAITING = """
select count(*) from pg_locks as l join pg_database as d on d.oid = l.database
 where l.locktype = 'advisory' and not l.granted and d.datname = current_database()
"""

OWNERS = """
select distinct pg_get_userbyid(p.proowner) from pg_proc as p where p.pronamespace = 'lapse'::regnamespace
"""

UNCOMMENTED = """
with ours as (select oid, nspname from pg_namespace where nspname in ('lapse', 'market'))
select 'schema ' || n.nspname from ours as n where obj_description(n.oid, 'pg_namespace') is null
union all
select 'relation ' || c.oid::regclass || ' (' || c.relkind::text || ')'
  from pg_class as c join ours as n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'v', 'm', 'S', 'i', 'I', 'c') and obj_description(c.oid, 'pg_class') is null
   and not (c.relkind = 'c' and exists (select from pg_type as t where t.typrelid = c.oid
                                           and obj_description(t.oid, 'pg_type') is not null))
   -- what serves a constraint or an identity column is explained there
   and not exists (select from pg_constraint as k where k.conindid = c.oid and k.contype in ('p', 'u', 'x'))
   and not exists (select from pg_depend as d where d.objid = c.oid and d.classid = 'pg_class'::regclass
                      and d.refobjsubid > 0 and d.deptype in ('i', 'a') and c.relkind = 'S')
union all
select 'column ' || c.oid::regclass || '.' || a.attname
  from pg_class as c join ours as n on n.oid = c.relnamespace
  join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 where c.relkind in ('r', 'p', 'v', 'm') and col_description(c.oid, a.attnum) is null
union all
select 'routine ' || p.oid::regprocedure from pg_proc as p join ours as n on n.oid = p.pronamespace
 where obj_description(p.oid, 'pg_proc') is null
union all
select 'trigger ' || t.tgname || ' on ' || t.tgrelid::regclass
  from pg_trigger as t join pg_class as c on c.oid = t.tgrelid join ours as n on n.oid = c.relnamespace
 where not t.tgisinternal and obj_description(t.oid, 'pg_trigger') is null
union all
select 'type ' || t.oid::regtype from pg_type as t join ours as n on n.oid = t.typnamespace
 where t.typtype in ('e', 'd', 'r') and obj_description(t.oid, 'pg_type') is null
"""


def ask(dsn: str, query: str) -> list[str]:
    """The first column of an answer."""
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute(query)]


@pytest.fixture
def used(empty: str) -> str:
    """A database of somebody else's, with an Alembic of its own."""
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute(USED)
    return empty


@pytest.fixture(scope="module")
def bare_server() -> Iterator[str]:
    """A server without pg_cron: nothing preloaded, and with the embedded wheel not even to be had."""
    try:
        bindir = cluster.find_embedded()
    except FileNotFoundError:
        bindir = cluster.find_local()
    if bindir is None:
        pytest.skip("neither the embedded wheel nor a local PostgreSQL to start a server from")
    folder = Path(tempfile.gettempdir()) / f"pglapse-test-{secrets.token_hex(4)}"
    try:
        with cluster.throwaway(bindir, folder) as dsn:
            yield dsn
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_both_branches_go_into_a_used_database_and_out_again(used: str) -> None:
    found = catalog(used)

    alembic(used, "upgrade", "heads")
    first, brought = catalog(used), rows(used)
    alembic(used, "downgrade", "base")
    left = catalog(used)
    alembic(used, "upgrade", "heads")
    second, brought_again = catalog(used), rows(used)

    assert left == found
    assert ask(used, "select version_num from public.alembic_version") == ["theirs"]
    assert second == first
    assert brought_again == brought
    assert {"schema lapse", "schema market"} <= set(first)


def test_each_revision_can_be_left_as_it_was_found(empty: str) -> None:
    for revision in STEPS:
        before = catalog(empty)
        alembic(empty, "upgrade", revision)
        first = catalog(empty)
        alembic(
            empty,
            "downgrade",
            f"{revision}-1" if revision not in SCRIPTS.get_bases() else f"{branch(revision)}@base",
        )
        assert catalog(empty) == before, f"{revision} does not leave what it found"
        alembic(empty, "upgrade", revision)
        assert catalog(empty) == first, f"{revision} does not come back as it was"


def branch(revision: str) -> str:
    """The branch that a revision belongs to, by its name."""
    return revision.rpartition("_")[0]


def test_the_engine_alone_is_what_the_marketplace_leaves_behind(empty: str) -> None:
    alembic(empty, "upgrade", "engine@head")
    alone, brought = catalog(empty), rows(empty)
    assert not ask(empty, "select nspname from pg_namespace where nspname = 'market'")

    alembic(empty, "upgrade", "heads")
    alembic(empty, "downgrade", "market@base")

    assert catalog(empty) == alone
    assert rows(empty) == brought


def test_the_script_run_by_psql_does_the_same(empty: str, server: str) -> None:
    found = catalog(empty)
    up = alembic(empty, "upgrade", "heads", "--sql").stdout
    down = alembic(empty, "downgrade", "heads:base", "--sql").stdout

    psql(empty, up)
    by_psql, brought = catalog(empty), rows(empty)
    psql(empty, down)

    assert catalog(empty) == found
    with databases.database(server) as online:
        alembic(online, "upgrade", "heads")
        assert by_psql == catalog(online)
        assert brought == rows(online)


@pytest.mark.parametrize("level", ["read committed", "serializable"])
def test_several_upgrades_at_once_do_no_harm(empty: str, template: str, server: str, level: str) -> None:
    with psycopg.connect(server, autocommit=True) as admin:
        name = psycopg.conninfo.conninfo_to_dict(empty)["dbname"]
        admin.execute(
            sql.SQL("alter database {} set default_transaction_isolation = {}").format(
                sql.Identifier(str(name)), sql.Literal(level)
            )
        )
    with psycopg.connect(empty) as holder:  # so that all of them really wait for each other
        holder.execute("select pg_advisory_xact_lock(7813263518091)")
        all_at_once = [started(empty, "upgrade", "heads") for _ in range(4)]
        databases.until(holder, WAITING, 4, patience=120)
    said = [process.communicate(timeout=240) for process in all_at_once]

    assert [process.returncode for process in all_at_once] == [0] * 4, said
    assert sum("installed engine_0001" in out for out, _ in said) == 1
    assert [line for line in catalog(empty) if not line.startswith("database ")] == [
        line
        for line in catalog(databases.on(server, databases.untouched(template)))
        if not line.startswith("database ")
    ]


def test_a_schema_of_somebody_elses_is_refused_and_kept(empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("create schema lapse; create table lapse.insurance (id integer)")
    found = catalog(empty)

    upgrade = alembic(empty, "upgrade", "heads", check=False)
    downgrade = alembic(empty, "downgrade", "base", check=False)

    assert upgrade.returncode == downgrade.returncode == 1
    assert "schema lapse is not pglapse's: it holds table lapse.insurance" in upgrade.stderr
    assert "Rename yours first" in upgrade.stderr
    assert catalog(empty) == found


def test_an_empty_schema_made_beforehand_is_used_and_stays(empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("create schema lapse")
    found = catalog(empty)

    alembic(empty, "upgrade", "engine@head")
    alembic(empty, "downgrade", "base")

    assert catalog(empty) == found


def test_a_failure_in_the_middle_leaves_nothing(empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute("create schema market")
    found = catalog(empty)

    done = alembic(empty, "upgrade", "heads", check=False)

    assert done.returncode == 1
    assert "installed" not in done.stdout
    assert catalog(empty) == found


def test_looking_changes_nothing(empty: str) -> None:
    found = catalog(empty)

    said = alembic(empty, "current").stdout

    assert said == ""
    assert catalog(empty) == found


def test_an_ordinary_role_that_owns_its_database_can_install_and_remove(server: str, empty: str) -> None:
    role = f"pglapse_owner_{secrets.token_hex(4)}"
    name = str(psycopg.conninfo.conninfo_to_dict(empty)["dbname"])
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
        admin.execute(
            sql.SQL("alter database {} owner to {}").format(sql.Identifier(name), sql.Identifier(role))
        )
        try:
            found = catalog(empty)
            mine = make_conninfo(empty, options=f"-c role={role}")
            alembic(mine, "upgrade", "heads")
            owners = ask(empty, OWNERS)
            by_another = alembic(empty, "upgrade", "heads", check=False)
            alembic(mine, "downgrade", "base")

            assert owners == [role]
            assert by_another.returncode == 1
            assert f"schema lapse belongs to role {role}" in by_another.stderr
            assert catalog(empty) == found
        finally:
            with psycopg.connect(empty, autocommit=True) as connection:
                connection.execute(
                    sql.SQL("reassign owned by {} to current_user").format(sql.Identifier(role))
                )
                connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))
            admin.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


@pytest.mark.parametrize("state", ["default", "now()"], ids=["pending", "dead"])
def test_queued_files_are_not_forgotten_by_a_downgrade(dsn: str, state: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select lapse.enqueue_file('public', 'a/b.jpg')")
        if state != "default":
            connection.execute("update lapse.file_cleanup_queue set dead_at = now()")
    before = catalog(dsn)

    refused = alembic(dsn, "downgrade", "base", check=False)
    script = alembic(dsn, "downgrade", "heads:base", "--sql").stdout
    with pytest.raises(AssertionError, match="files are still queued to be deleted: 1"):
        psql(dsn, script)

    assert refused.returncode == 1
    assert "files are still queued to be deleted: 1" in refused.stderr
    assert "--discard-queue" in refused.stderr
    assert catalog(dsn) == before
    assert ask(dsn, "select path from lapse.file_cleanup_queue") == ["a/b.jpg"]

    alembic(dsn, "-x", "discard-queue", "downgrade", "base")
    assert not ask(dsn, "select nspname from pg_namespace where nspname in ('lapse', 'market')")


def test_a_downgrade_names_what_users_made_of_ours_and_how_to_drop_it(used: str) -> None:
    found = catalog(used)
    alembic(used, "upgrade", "engine@head")
    with psycopg.connect(used, autocommit=True) as connection:
        connection.execute(
            "create table shop.pictures (path text); create index on shop.pictures (lapse.path_digest(path));"
            "create function shop.sweep(integer, timestamptz, timestamptz) returns lapse.progress"
            " language sql as 'select null::lapse.progress'"
        )

        refused = alembic(used, "downgrade", "base", check=False)
        hint = refused.stderr.split("Drop it first. ")[1].splitlines()[0].strip()
        connection.execute(hint)
        connection.execute("drop table shop.pictures")

    assert refused.returncode == 1
    alembic(used, "downgrade", "base")
    assert catalog(used) == found


def test_functions_made_for_declared_policies_go_with_the_engine(used: str) -> None:
    found = catalog(used)
    alembic(used, "upgrade", "engine@head")
    with psycopg.connect(used, autocommit=True) as connection:
        connection.execute("create table shop.carts (id bigint primary key, ends timestamptz)")
        connection.execute("select lapse.create_expiry('carts', 'shop.carts', 'ends', p_index => 'build')")

    alembic(used, "downgrade", "base")
    with psycopg.connect(used, autocommit=True) as connection:
        connection.execute("drop table shop.carts")

    assert catalog(used) == found


def test_the_marketplace_may_go_while_files_are_queued(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select lapse.enqueue_file('public', 'a/b.jpg')")

    alembic(dsn, "downgrade", "market@base")

    assert ask(dsn, "select path from lapse.file_cleanup_queue") == ["a/b.jpg"]


def test_jobs_in_another_database_are_named_before_anything_goes(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "insert into lapse.cron_job (cron_database, jobname, jobid, schedule, command)"
            " values ('jobs_home', 'lapse-1@here', 1, '* * * * *', 'call lapse.run_due()')"
        )
    before = catalog(dsn)

    done = alembic(dsn, "downgrade", "base", check=False)

    assert done.returncode == 1
    assert "pg_cron in database jobs_home still has jobs that call this one" in done.stderr
    assert "pglapse unschedule --cron-dsn" in done.stderr
    assert catalog(dsn) == before


@pytest.mark.cron
def test_a_database_with_pg_cron_is_left_as_found_schedule_included(cron_server: str) -> None:
    assert not ask(cron_server, "select nspname from pg_namespace where nspname in ('lapse', 'market')")
    with psycopg.connect(cron_server, autocommit=True) as connection:
        connection.execute("select cron.schedule('theirs', '0 3 1 1 *', 'select 1')")
    try:
        found = catalog(cron_server)

        alembic(cron_server, "upgrade", "heads")
        with psycopg.connect(cron_server, autocommit=True) as connection:
            connection.execute("select from lapse.schedule()")
        scheduled = ask(cron_server, "select jobname from cron.job where jobname ~ '^lapse-' order by 1")
        alembic(cron_server, "-x", "discard-queue", "downgrade", "base")

        assert scheduled == ["lapse-1", "lapse-2"]
        assert catalog(cron_server) == found
    finally:
        alembic(cron_server, "-x", "discard-queue", "downgrade", "base")
        with psycopg.connect(cron_server, autocommit=True) as connection:
            connection.execute("select cron.unschedule('theirs')")


def test_a_server_without_pg_cron_is_enough(bare_server: str) -> None:
    with psycopg.connect(bare_server, autocommit=True) as connection:
        connection.execute(USED)
    found = catalog(bare_server)

    alembic(bare_server, "upgrade", "heads")
    first = catalog(bare_server)
    alembic(bare_server, "downgrade", "base")
    left = catalog(bare_server)
    alembic(bare_server, "upgrade", "heads")

    assert left == found
    assert catalog(bare_server) == first


def test_living_files_alone_build_what_the_revisions_build(untouched: str) -> None:
    dsn = untouched
    built, brought = catalog(dsn), rows(dsn)
    living = [
        path.read_text(encoding="utf-8")
        for kind in ("functions", "triggers", "views")
        for path in sorted((ROOT / "sql" / kind).rglob("*.sql"))
    ]

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(drop_all_that_is_replaceable(connection))
        for _ in range(2):
            with connection.transaction():
                connection.execute("set local check_function_bodies = off")
                for script in living:
                    connection.execute(script)
        connection.execute("revoke all on all routines in schema lapse, market from public")

    assert catalog(dsn) == built
    assert rows(dsn) == brought


def drop_all_that_is_replaceable(connection: psycopg.Connection) -> str:
    """Commands that drop every view, trigger and routine of ours that no index and no default needs."""
    commands = connection.execute(
        """
        with ours as (select oid from pg_namespace where nspname in ('lapse', 'market')), relations as (
            select c.* from pg_class as c join ours on ours.oid = c.relnamespace
        )
        select format('drop view if exists %s cascade', c.oid::regclass)
          from relations as c where c.relkind = 'v'
        union all
        select format('drop trigger %I on %s', t.tgname, c.oid::regclass)
          from pg_trigger as t join relations as c on c.oid = t.tgrelid where not t.tgisinternal
        union all
        select format('drop routine %s', p.oid::regprocedure)
          from pg_proc as p join ours on ours.oid = p.pronamespace
         where not exists (
               select from pg_depend as d
                where d.refclassid = 'pg_proc'::regclass and d.refobjid = p.oid and d.classid in (
                      'pg_class'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass))
        """
    )
    return ";\n".join(command for (command,) in commands)


def test_every_object_explains_itself(dsn: str) -> None:
    assert ask(dsn, UNCOMMENTED) == []


def test_nothing_is_anybodys_whatever_the_databases_default_privileges_say(used: str) -> None:
    alembic(used, "upgrade", "heads")

    assert ask(used, PUBLIC_RIGHTS) == []
