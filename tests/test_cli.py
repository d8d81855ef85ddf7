"""The commands: what people see, what programs get, and how it fails."""

import io
import json
import re
import uuid
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb
from rich.console import Console
from typer.testing import CliRunner

from pglapse import __version__
from pglapse.cli import app
from pglapse.status import Status, rendered
from tests.support.running import pglapse


def enqueue(conn: psycopg.Connection, path: str, *, dead: str | None = None, after: str = "0 s") -> int:
    [[number]] = conn.execute(
        "select lapse.enqueue_file('public', %s, clock_timestamp() + %s::interval)", [path, after]
    ).fetchall()
    if dead:
        conn.execute(
            "update lapse.file_cleanup_queue set dead_at = now(), last_error = %s, attempts = 10"
            " where id = %s",
            [dead, number],
        )
    return number


def said(*arguments: str) -> Any:
    """What a command that needs no database prints, without a process of its own."""
    return CliRunner().invoke(app, list(arguments), prog_name="pglapse")


def paths(conn: psycopg.Connection, condition: str = "true") -> list[str]:
    query = f"select path from lapse.file_cleanup_queue where {condition} order by path"
    return [path for (path,) in conn.execute(query).fetchall()]


def test_help_teaches_and_no_command_is_help():
    done = said("--help")
    for command in ("worker", "status", "run", "queue", "schedule", "unschedule", "upgrade", "demo"):
        assert f"\n  {command} " in done.stdout
        helped = said(command, "--help")
        assert helped.exit_code == 0
        assert len(helped.stdout) > 200
    for command in (
        ["worker"],
        ["status"],
        ["run"],
        ["queue", "list"],
        ["queue", "retry"],
        ["queue", "discard"],
    ):
        assert f"    pglapse {' '.join(command)}" in said(*command, "--help").stdout

    assert said().output == done.stdout
    assert said("--version").stdout == f"pglapse {__version__}\n"


def test_status_shows_policies_queue_and_workers_in_plain_text(conn, dsn):
    enqueue(conn, "a")
    enqueue(conn, "b", dead="the disk is gone")
    enqueue(conn, "c", after="1 day")
    conn.execute("select lapse.worker_hello('host-1-abc', 'host', 1, '0.1.0')")
    conn.execute("select lapse.pause('expire_coupons')")
    conn.execute("call lapse.run('expire_invitation_codes')")

    done = pglapse(dsn, "status")

    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    [coupons] = [line for line in lines if line.startswith("expire_coupons ")]
    assert "paused" in coupons
    [codes] = [line for line in lines if line.startswith("expire_invitation_codes ")]
    assert re.search(r" ok \d+ s ago ", codes)
    queue = lines[lines.index("File queue") + 2].split()
    assert queue[:5] == ["2", "1", "0", "0", "1"]
    assert any(line.startswith("host-1-abc ") for line in lines)
    assert "pglapse queue list --state dead" in done.stdout


def test_status_is_coloured_on_a_terminal_only(dsn):
    assert "\x1b[" in pglapse(dsn, "status", FORCE_COLOR="1", TERM="xterm-256color").stdout
    assert "\x1b[" not in pglapse(dsn, "status").stdout


def test_status_for_programs_is_one_json_object(conn, dsn):
    enqueue(conn, "a", after="-1 minute")

    done = pglapse(dsn, "status", "--json")

    found = json.loads(done.stdout)
    assert set(found) == {"database", "at", "guard", "policies", "queue", "storages", "workers"}
    assert found["database"] == conn.info.dbname
    assert found["queue"]["due"] == 1
    assert 60 <= found["queue"]["oldest_due_age"] < 120
    assert {"policy", "next_run_in", "backlog", "last_status"} <= set(found["policies"][0])


def test_status_tells_which_storage_is_in_trouble_and_which_is_nobody_s(conn, dsn):
    conn.execute("select lapse.worker_hello('host-1-abc', 'host', 1, '0.1.0', '{public, other}')")
    conn.execute(
        "select lapse.worker_beat('host-1-abc', 0, 0, 0, false, %s)", [Jsonb({"public": "read-only\x1b[31m"})]
    )
    conn.execute("select lapse.enqueue_file('lonely', n::text) from generate_series(1, 2) as n")
    conn.execute("select lapse.enqueue_file('public', 'a')")

    shown = pglapse(dsn, "status").stdout.splitlines()
    coloured = pglapse(dsn, "status", FORCE_COLOR="1", TERM="xterm-256color").stdout

    assert "  public: read-only\\x1b[31m" in shown
    assert "  storage lonely: no worker serves it, and 2 files due" in shown
    assert not any("storage public: no worker" in line or "storage other" in line for line in shown)
    for words in ("  storage lonely: ", "  public: "):
        assert f"\x1b[31m{words}" in coloured


def test_status_tells_what_the_last_sweep_of_each_storage_found(conn, dsn):
    conn.execute("select lapse.worker_hello('host-1-abc', 'host', 1, '0.1.0', '{public, private, other}')")
    found = {"files": 1200, "orphans": 7, "queued": 7, "stopped": None}
    conn.execute("select lapse.sweep_end('public', %s)", [Jsonb(found)])
    conn.execute("select lapse.sweep_end('private', %s)", [Jsonb(found | {"queued": 0, "stopped": "many"})])

    shown = pglapse(dsn, "status")
    rows = json.loads(pglapse(dsn, "status", "--json").stdout)["storages"]

    lines = [re.sub(r"\d+ s ago", "0 s ago", line) for line in shown.stdout.splitlines() if "swept" in line]
    assert lines == [
        "  storage private: swept 0 s ago, 1,200 files looked at, 7 known to no row, 0 queued; stopped: many",
        "  storage public: swept 0 s ago, 1,200 files looked at, 7 known to no row, 7 queued",
    ]
    assert {row["storage"]: row["last_sweep"] for row in rows}["public"] == found
    assert {row["storage"]: row["last_sweep"] for row in rows}["other"] is None


def test_status_tells_the_error_of_a_failed_policy(conn, dsn):
    conn.execute(
        "create function lapse.broken(p_limit integer, p_cutoff timestamptz, p_after timestamptz)"
        " returns lapse.progress language plpgsql as $$ begin raise exception 'this step is broken'; end $$"
    )
    conn.execute("select lapse.create_policy('broken', 'lapse.broken', '10 s')")

    failed = pglapse(dsn, "run", "broken")
    shown = pglapse(dsn, "status")

    assert failed.returncode == 1
    assert "this step is broken" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert re.search(r"^  broken: .*this step is broken", shown.stdout, re.MULTILINE), shown.stdout
    assert re.search(r" failed \d+ s ago, 1 in a row ", shown.stdout)


def test_run_serves_one_policy_now(conn, dsn):
    conn.execute("insert into market.users (email, display_name) values ('a@example.org', 'ann')")
    conn.execute(
        "insert into market.tasks (poster_id, title, deadline)"
        " select u.id, 'paint', d"
        "   from market.users as u, unnest(array[timestamptz '2026-01-01', '2026-02-01']) as d"
    )

    done = pglapse(dsn, "run", "cancel_expired_tasks", "--as-of", "2026-01-31T00:00:00Z")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "cancel_expired_tasks: 1 row(s) changed in 1 batch(es)\n"
    statuses = conn.execute("select status from market.tasks order by deadline").fetchall()
    assert statuses == [("cancelled",), ("open",)]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "nonsense"], 2, "nonsense"),
        (["run", "expire_coupons", "--as-of", "tomorrow"], 2, "--as-of: not a time: 'tomorrow'"),
        (["run", "expire_coupons", "--as-of", "2999-01-01"], 2, "future"),
        (["run"], 2, "policy"),
        (["queue", "list", "--state", "odd"], 2, "--state"),
        (["queue", "list", "--limit", "0"], 2, "--limit"),
        (["queue", "retry"], 2, "which files?"),
        (["queue", "retry", "1", "--all"], 2, "which files?"),
        (["queue", "retry", "x"], 2, "valid integer"),
        (["queue", "retry", "9223372036854775808"], 2, "less than"),
        (["queue", "retry", "--", "-1"], 2, "greater than"),
        (["queue", "discard", "1"], 2, "--reason"),
        (["queue", "discard", "1", "--reason", "\udcff"], 2, "not valid text"),
        (["queue", "list", "--storage", "\udcff"], 2, "not valid text"),
        (["run", "\udcff"], 2, "not valid text"),
        (["queue", "discard", "1", "--reason", " "], 2, "why"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_a_clear_line(dsn, arguments, code, words):
    done = pglapse(dsn, *arguments)

    assert done.returncode == code, done.stderr
    assert words in done.stderr.lower() or words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_paused_policy_is_not_run(conn, dsn):
    conn.execute("select lapse.pause('expire_coupons')")

    done = pglapse(dsn, "run", "expire_coupons")

    assert done.returncode == 1
    assert "paused" in done.stderr


def test_queue_list_shows_dead_files_first_then_those_due_first(conn, dsn):
    enqueue(conn, "later", after="1 hour")
    enqueue(conn, "due\nnow\x1b[31m", after="-1 minute")
    enqueue(conn, "dead", dead="the disk is gone")
    conn.execute("select lapse.enqueue_file('private', 'never', 'infinity')")

    done = pglapse(dsn, "queue", "list")

    assert done.returncode == 0, done.stderr
    shown = [line.split()[1:4] for line in done.stdout.splitlines()[1:]]
    assert shown == [
        ["dead", "public", "dead"],
        ["due", "public", r"due\nnow\x1b[31m"],
        ["waiting", "public", "later"],
        ["waiting", "private", "never"],
    ]
    assert "the disk is gone" in done.stdout
    assert "\x1b" not in done.stdout


def test_queue_list_filters_and_limits_and_speaks_json(conn, dsn):
    for number in range(5):
        enqueue(conn, f"{number}")
    enqueue(conn, "é\n", dead="gone")
    conn.execute("select lapse.enqueue_file('private', 'p')")

    dead = json.loads(pglapse(dsn, "queue", "list", "--state", "dead", "--json").stdout)
    private = json.loads(pglapse(dsn, "queue", "list", "--storage", "private", "--json").stdout)
    limited = pglapse(dsn, "queue", "list", "--state", "due", "--limit", "3")
    none = pglapse(dsn, "queue", "list", "--state", "leased")

    assert [(row["path"], row["last_error"]) for row in dead] == [("é\n", "gone")]
    assert [row["path"] for row in private] == ["p"]
    assert len(limited.stdout.splitlines()) == 4
    assert "--limit" in limited.stderr
    assert none.stdout == "nothing like that is queued\n"


def test_dead_files_are_tried_again_by_number_by_storage_or_all(conn, dsn):
    first = enqueue(conn, "1", dead="x")
    for path in ("2", "3"):
        enqueue(conn, path, dead="x")

    one = pglapse(dsn, "queue", "retry", str(first))
    wrong = pglapse(dsn, "queue", "retry", str(first))
    elsewhere = pglapse(dsn, "queue", "retry", "--storage", "private")
    everything = pglapse(dsn, "queue", "retry", "--all")

    assert (one.returncode, one.stdout) == (0, "1 dead row will be tried again\n")
    assert wrong.returncode == 1
    assert elsewhere.stdout == "0 dead rows will be tried again\n"
    assert everything.stdout == "2 dead rows will be tried again\n"
    assert paths(conn, "dead_at is null and attempts = 0") == ["1", "2", "3"]


def test_discarded_files_leave_the_queue_and_the_log_says_why(conn, dsn):
    number = enqueue(conn, "a", dead="x")
    held = enqueue(conn, "held")
    conn.execute("select lapse.exchange_files('somebody')")

    done = pglapse(dsn, "queue", "discard", str(number), "--reason", "the disk is gone")
    refused = pglapse(dsn, "queue", "discard", str(held), "--reason", "no")

    assert (done.returncode, done.stdout) == (0, "1 row taken out of the queue\n")
    assert refused.returncode == 1
    assert "a worker holds them" in refused.stderr
    assert paths(conn) == ["held"]
    assert conn.execute("select path, outcome, note from lapse.file_cleanup_log").fetchall() == [
        ("a", "discarded", "the disk is gone")
    ]


@pytest.mark.parametrize(
    "command", [["status"], ["queue", "list"], ["run", "x"], ["queue", "retry", "--all"]]
)
def test_a_database_without_pglapse_is_one_line_with_the_command_to_type(empty, command):
    done = pglapse(empty, *command)

    assert done.returncode == 1
    assert done.stderr.startswith("pglapse: pglapse is not installed in database ")
    assert "pglapse upgrade" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_database_that_is_away_is_one_line_and_exit_code_1():
    done = pglapse("postgresql://127.0.0.1:1/x", "status")

    assert done.returncode == 1
    assert "refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_whatever_the_database_refuses_is_one_line(conn, dsn):
    enqueue(conn, "a", dead="x")
    read_only = make_conninfo(dsn, options="-c default_transaction_read_only=on")
    done = pglapse(read_only, "queue", "retry", "--all")

    assert done.returncode == 1
    assert "read-only" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_can_t_show_a_name_shows_the_rest(conn, dsn, encoding):
    enqueue(conn, "日本😀.jpg")

    listed = pglapse(dsn, "queue", "list", PYTHONIOENCODING=encoding)
    told = pglapse(dsn, "queue", "list", "--json", PYTHONIOENCODING=encoding)
    status = pglapse(dsn, "status", PYTHONIOENCODING=encoding)

    assert (listed.returncode, told.returncode, status.returncode) == (0, 0, 0)
    assert ".jpg" in listed.stdout
    assert [row["path"] for row in json.loads(told.stdout)] == ["日本😀.jpg"]


def test_a_role_that_may_only_look_can_look_and_is_told_what_it_lacks(conn, dsn):
    role = f"pglapse_test_{uuid.uuid4().hex[:8]}"
    conn.execute(f"create role {role} login")
    try:
        conn.execute(f"select lapse.grant_observer('{role}')")
        enqueue(conn, "a")
        looker = psycopg.conninfo.make_conninfo(dsn, options=f"-c role={role}")

        assert pglapse(looker, "status").returncode == 0
        assert pglapse(looker, "queue", "list").returncode == 0
        run = pglapse(looker, "run", "expire_coupons")
        retry = pglapse(looker, "queue", "retry", "--all")

        assert run.returncode == retry.returncode == 1
        assert "select lapse.grant_runner(" in run.stderr
        assert "owner of schema lapse" in retry.stderr
    finally:
        conn.execute(f"drop owned by {role}")
        conn.execute(f"drop role {role}")


def test_no_number_is_cut_on_a_terminal_of_80_columns():
    queue = {
        "pending": 10_001, "due": 10_001, "leased": 10_000, "retrying": 10_001, "dead": 10_001,
        "oldest_due_age": 123_456.0, "files_last_day": 100_001, "bytes_last_day": 999_900_000_000,
        "counts_are_minimum": True,
    }  # fmt: skip
    policy = {
        "policy": "a_policy_with_a_long_name_indeed", "enabled": True, "schedule": "daily at 03:00 UTC",
        "running_for": None, "next_run_in": 65_000.0, "last_status": "ok", "last_run_ago": 20_000.0,
        "consecutive_failures": 0, "rows_last_run": 999_999, "rows_last_day": 9_999_999,
        "backlog": "37", "oldest_due_age": 90_061.0, "blocked_rows": 1_000, "last_error": None,
        "braked_at": None,
    }  # fmt: skip
    screen = Console(width=80, file=io.StringIO())
    screen.print(rendered(Status("x", "now", {"adopted": True, "holds": 1}, [policy], queue, [], [])))
    shown = screen.file.getvalue()

    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for number in ("10,000", "100,001", "999.9 GB", "1 d 10 h", "999,999", "9,999,999", "1 d 1 h", "1,000"):
        assert number in shown
