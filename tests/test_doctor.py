"""``pglapse doctor``: what only a client sees, exit codes, and that no trouble of one check hides another."""

import json
import os
import re
import shlex
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pglapse import __version__, deadline, markers
from pglapse.config import LocalSettings, Settings
from pglapse.deadline import Patience
from pglapse.doctor import clock, guarded, hearing, storages, versions
from pglapse.doctor.examination import examined
from pglapse.doctor.finding import Finding, exit_code, fail, ok, warn
from pglapse.errors import SchemaError
from pglapse.storage import Away, marker
from pglapse.storage.folders import FOLDER
from pglapse.storage.s3.settings import S3Settings
from tests.support import databases, pages, roles
from tests.support.install import ROOT
from tests.support.mounts import tmpfs
from tests.support.pooler import pgbouncer
from tests.support.running import pglapse
from tests.test_doctor_sql import role


@pytest.fixture(scope="module")
def dsn(server: str, template: str) -> Iterator[str]:
    """One database for this module, sound and just ticked."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def conn(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    conn.execute("call lapse.run_due('worker')")
    return conn


@pytest.fixture
def own(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[deadline.Connection]:
    """A connection as the command has one."""
    monkeypatch.setenv("DATABASE_URL", dsn)
    with deadline.connect(Patience(20)) as connection:
        yield connection


def report(dsn: str, folder: Path, config: str | None = None) -> tuple[int, dict[str, Finding]]:
    """The exit code, and of each check the worst that it says, as the command would from ``folder``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DATABASE_URL", roles.acting(dsn, roles.OBSERVER))
        lines = list(examined(config, None))
    worst = {one.check: one for one in sorted(lines, key=lambda one: exit_code([one]))}
    return exit_code(lines), worst


def config(folder: Path, **roots: Path) -> Path:
    path = folder / "pglapse.toml"
    path.write_text(
        "".join(f'[storage.{name}]\nkind = "local"\nroot = "{root}"\n' for name, root in roots.items())
    )
    return path


# ---- the whole --------------------------------------------------------------------------------------


def test_where_all_is_well_every_line_is_ok_and_so_is_the_exit_code(conn, dsn, tmp_path):
    done = pglapse(dsn, "doctor", cwd=tmp_path)

    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines[:-2]} == {"ok"}
    assert re.fullmatch(r"\d\d ok, 0 to look at, 0 failing", lines[-1])
    assert done.stderr == ""
    assert pglapse(dsn, "doctor", "--quiet", cwd=tmp_path).stdout == ""


def test_programs_get_one_object_with_every_check(conn, dsn, tmp_path):
    found = json.loads(pglapse(dsn, "doctor", "--json", cwd=tmp_path).stdout)

    assert (found["version"], found["level"]) == (__version__, "ok")
    assert [one["place"] for one in found["checks"]] == list(range(1, len(found["checks"]) + 1))
    names = {one["check"] for one in found["checks"]}
    assert {"server", "versions", "queue", "client_clock", "listen", "pooler", "storages_here"} <= names
    assert all(one["message"] for one in found["checks"])


def test_a_warning_is_exit_code_1_and_a_failure_2_each_with_its_command(conn, dsn, tmp_path):
    with conn.cursor() as cursor:
        cursor.execute("select lapse.pause('expire_coupons')")
        cursor.execute(
            "insert into market.coupons (code, valid_until) values ('x', now() - interval '1 day')"
        )
    try:
        warned = pglapse(dsn, "doctor", "--quiet", cwd=tmp_path)
        conn.execute("alter table market.tasks disable trigger count_tasks_insert")
        failed = pglapse(dsn, "doctor", "--quiet", cwd=tmp_path)
    finally:
        conn.execute("alter table market.tasks enable trigger count_tasks_insert")
        conn.execute("delete from market.coupons; select lapse.resume('expire_coupons')")

    assert warned.returncode == 1
    assert warned.stdout.splitlines()[1].strip() == "mend: select lapse.resume('expire_coupons');"
    assert failed.returncode == 2
    assert (
        "      mend: alter table market.tasks enable trigger count_tasks_insert;"
        in failed.stdout.splitlines()
    )


def test_a_server_that_can_not_be_reached_is_a_line_and_storages_are_looked_at_all_the_same(tmp_path):
    (tmp_path / "root").mkdir()
    config(tmp_path, a=tmp_path / "root")

    code, found = report("postgresql://127.0.0.1:1/nowhere", tmp_path)

    assert code == 2
    assert found["server"].level == "fail"
    assert set(found) == {"server", "storage a"}
    assert "the database can't say" in found["storage a"].message


def test_a_connection_string_that_is_none_is_a_line(tmp_path):
    code, found = report("nonsense", tmp_path)

    assert (code, found["server"].level) == (2, "fail")
    assert "DATABASE_URL looks like" in (found["server"].command or "")


def test_a_database_without_pglapse_is_told_the_command_that_installs_it(empty, tmp_path):
    code, found = report(empty, tmp_path)

    assert code == 2
    assert found["schema"] == fail("schema", "pglapse is not installed in this database", "pglapse upgrade")
    assert found["listen"].level == "ok"


def test_a_role_without_a_grant_is_told_the_grant_and_the_rest_is_looked_at(conn, dsn, tmp_path):
    with role(conn, "login") as nobody:
        code, found = report(make_conninfo(dsn, options=f"-c role={nobody}"), tmp_path)

    assert code == 2
    assert found["versions"].level == "warn"
    assert "lapse.grant_observer" in (found["versions"].command or "")
    assert "lapse.grant_observer" in (found["schema"].command or "")
    assert found["client_clock"].level == "ok"


@pytest.mark.parametrize("file", ["nowhere.toml", "broken.toml"])
def test_a_configuration_that_was_named_and_can_not_be_read_is_a_failure(conn, dsn, tmp_path, file):
    (tmp_path / "broken.toml").write_text("[storage")

    code, found = report(dsn, tmp_path, file)

    assert (code, found["storages_here"].level) == (2, "fail")
    assert found["queue"].level == "ok"


def test_its_page_runs_as_it_is_written_and_names_every_check(conn, dsn):
    assert pages.run(ROOT / "docs" / "doctor.md", dsn) == 1

    page = (ROOT / "docs" / "doctor.md").read_text()
    names = conn.execute("select name from lapse.doctor_checks()").fetchall()
    assert [name for (name,) in names if f"| `{name}` |" not in page] == []


# ---- one by one -------------------------------------------------------------------------------------


def test_levels_make_the_exit_code():
    lines = [ok("a", "a"), warn("b", "b", "c"), fail("c", "c", "d")]

    assert [exit_code(lines[:n]) for n in range(4)] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SchemaError("old", hint="upgrade"), fail("x", "old", "upgrade")),
        (Away("gone"), fail("x", "gone", "again")),
        (psycopg.errors.InsufficientPrivilege("no"), warn("x", "not to be seen by this role: None", "again")),
        (psycopg.OperationalError("down"), warn("x", "could not be looked at: down", "again")),
        (ZeroDivisionError("zero"), warn("x", "could not be looked at: ZeroDivisionError: zero", "again")),
    ],
)
def test_an_error_of_a_check_is_its_line(error, expected):
    def look() -> list[Finding]:
        raise error

    assert guarded.guarded("x", look, "again") == [expected]


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [(0, "ok", "agree to"), (10, "warn", "10.0 s ahead of"), (-3600, "fail", "3600.0 s behind")],
)
def test_clocks_that_differ_are_told(own, monkeypatch, ahead, level, words):
    time = clock.time.time
    monkeypatch.setattr(clock.time, "time", lambda: time() + ahead)

    [found] = clock.clock(own)

    assert (found.level, words in found.message) == (level, True), found
    assert (found.command is None) == (level == "ok")


@pytest.mark.parametrize(("more", "command"), [(1, "pglapse upgrade"), (-1, "pip install --upgrade pglapse")])
def test_a_package_and_a_database_that_do_not_fit_are_told(own, monkeypatch, more, command):
    monkeypatch.setattr(versions.schema, "API", versions.schema.API + more)

    [found] = guarded.guarded("versions", lambda: versions.routines(own))

    assert (found.level, found.command) == ("fail", f"type: {command}")


def test_a_server_newer_than_any_that_was_tested_is_a_warning(own, monkeypatch):
    monkeypatch.setattr(versions, "NEWEST", 14)

    [found] = versions.server(own)

    assert (found.level, found.command) == ("warn", "pip install --upgrade pglapse")


@pytest.mark.parametrize(("mode", "levels"), [("session", ["ok", "ok"]), ("transaction", ["warn", "warn"])])
def test_a_pooler_in_the_way_is_found_out(dsn, tmp_path, monkeypatch, mode, levels):
    with pgbouncer(dsn, tmp_path, mode) as pooler:
        monkeypatch.setenv("DATABASE_URL", pooler.dsn)
        with deadline.connect(Patience(20)) as conn:
            found = list(hearing.hearing(conn, 5 if mode == "session" else 0.5))

    assert [one.level for one in found] == levels
    assert [one.check for one in found] == ["listen", "pooler"]
    assert all(
        ("pooler" in one.message or one.command)
        for one in found
        if one.level != "ok" or one.check == "pooler"
    )


def test_all_of_it_works_through_a_pooler(conn, dsn, tmp_path, monkeypatch):
    with pgbouncer(dsn, tmp_path, "transaction") as pooler:
        monkeypatch.setenv("DATABASE_URL", roles.login(pooler.dsn, roles.OBSERVER))
        found = list(examined(None, None))

    assert {one.check for one in found if one.level != "ok"} == {"listen", "pooler"}


# ---- storages ---------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "the root"
    path.mkdir()
    return path


def marked(root: Path, number: UUID) -> None:
    opened = os.open(root, FOLDER)
    try:
        marker.replace(opened, number)
    finally:
        os.close(opened)


def line(root: Path, known: dict[str, Any] | None, **more: Any) -> Finding:
    """What is said of storage a in this root."""
    settings = Settings(Path("my conf.toml"), {"a": replace(LocalSettings("a", root), **more)})
    [found, *_] = storages.examined(settings, known)
    return found


def row(number: UUID | None, seen: bool = True) -> dict[str, Any]:
    return {"marker": number and str(number), "marked_at": "2026-01-01" if seen else None}


ADOPT = "pglapse storage adopt a --config 'my conf.toml' --yes"
LOST = f"mount its disk; if this is the root: {ADOPT}"


def test_a_root_with_its_marker_is_ok(root):
    number = uuid4()
    marked(root, number)

    assert line(root, {"a": row(number)}).level == "ok"
    assert line(root, {}, marker=False).level == "ok"
    assert line(root, None).level == "ok"


@pytest.mark.parametrize(
    ("spoil", "known", "level", "words", "command"),
    [
        (lambda root: root.rmdir(), {}, "fail", "can't be used: .*folder", "mount its disk, or mkdir -p "),
        (lambda root: (root.rmdir(), root.touch()), {}, "fail", "can't be used: .*not a folder", "ls -ld "),
        (lambda root: None, {}, "warn", "no worker has used", "pglapse worker --config 'my conf.toml'"),
        (lambda root: None, {"a": row(uuid4())}, "fail", "has lost its marker", LOST),
        (lambda root: marked(root, uuid4()), {"a": row(uuid4())}, "fail", "another marker", ADOPT),
        (lambda root: marked(root, uuid4()), {}, "fail", "the marker of another database", ADOPT),
        (lambda root: (root / marker.NAME).touch(), {"a": row(uuid4())}, "fail", "can't be used", ADOPT),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_root_is_told_with_the_command(root, spoil, known, level, words, command):
    spoil(root)

    found = line(root, known)

    assert (found.level, bool(re.search(words, found.message))) == (level, True), found
    assert (found.command or "").startswith(command), found


def test_a_root_that_this_user_may_not_write_to_is_a_failure(root, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_, **__: False)

    assert "may not delete in its root" in line(root, {}).message


def test_a_root_that_is_mounted_read_only_is_a_failure(tmp_path):
    target = tmp_path / "disk"
    target.mkdir()
    with tmpfs(target, "size=1m,ro"):
        found = line(target, {})

    assert (found.level, "mounted read-only" in found.message) == ("fail", True)


def test_a_storage_that_hangs_is_given_up_and_the_next_is_looked_at(root, monkeypatch):
    hangs = threading.Event()

    def look(one: LocalSettings, *_: Any) -> Iterator[Finding]:
        if one.name == "slow":
            hangs.wait(20)
        yield ok(one.name, "fine")

    monkeypatch.setattr(storages, "_local", look)
    settings = Settings(Path("p.toml"), {name: LocalSettings(name, root) for name in ("slow", "quick")})
    try:
        found = list(storages.examined(settings, {}, patience=0.2))
    finally:
        hangs.set()

    assert [(one.level, one.check) for one in found] == [("fail", "storage slow"), ("ok", "quick")]
    assert "does not answer within 0.2 s" in found[0].message


def test_a_bucket_whose_server_is_away_is_a_failure(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    one = S3Settings("b", "bucket", endpoint_url="http://127.0.0.1:1", region="us-east-1")

    [found] = storages.examined(Settings(Path("p.toml"), {"b": one}), {})

    assert (found.level, found.check) == ("fail", "storage b")


def test_a_storage_that_others_serve_is_named_and_no_trouble(root):
    found = list(
        storages.examined(Settings(Path("p.toml"), {"a": LocalSettings("a", root)}), {"z": row(None)})
    )

    assert [(one.level, one.check) for one in found] == [("warn", "storage a"), ("ok", "storage z")]


def test_a_root_is_mended_by_the_command_that_is_printed(conn, dsn, tmp_path, root):
    file = config(tmp_path, public=root)
    assert pglapse(dsn, "worker", "--once", "--config", str(file)).returncode == 0
    conn.execute("call lapse.run_due('worker')")
    try:
        assert report(dsn, tmp_path)[1]["storage public"].level == "ok"
        marked(root, uuid4())
        found = report(dsn, tmp_path)[1]["storage public"]
        assert (found.level, found.command) == (
            "fail",
            "pglapse storage adopt public --config pglapse.toml --yes",
        )

        done = pglapse(dsn, *shlex.split(found.command or "")[1:], cwd=tmp_path)

        assert done.returncode == 0, done.stderr
        assert report(dsn, tmp_path)[1]["storage public"].level == "ok"
        assert markers.known(conn)["public"]["marker"] == (root / marker.NAME).read_text().split()[0]
    finally:
        conn.execute("delete from lapse.storage")


def test_there_is_nothing_left_of_the_round_trip(own):
    with ExitStack() as stack:
        stack.callback(own.execute, "unlisten *")
        list(hearing.hearing(own))

        assert own.execute("select count(*) from pg_listening_channels()").fetchone() == (0,)
