"""Rights: nothing is PUBLIC's, and each role can do its job and nothing else."""

import secrets
from collections.abc import Callable, Iterator

import psycopg
import pytest

from tests.support.queue import enqueue, exchange, hand_in, result, row

GRANTS = ("grant_application", "grant_runner", "grant_worker", "grant_observer", "grant_author")
RUNNER = {
    "run", "run_due", "begin_run", "may_stay", "begin_tick", "next_due", "run_batch", "leave_runs",
    "raise_failures",
    "tell_run",
}  # fmt: skip
MAY_CALL = {
    "grant_application": {"enqueue_file", "enqueue_files", "cancel_file", "cancel_files", "path_digest"},
    "grant_runner": RUNNER,
    "grant_worker": RUNNER
    | {
        "api_version",
        "worker_hello",
        "worker_beat",
        "worker_bye",
        "exchange_files",
        "exchange_files_packed",
        "renew_files",
    }
    | {"storage_marker"}
    | {"unknown_files", "listed_files", "enqueue_orphans", "sweep_begin", "sweep_end", "halt_reason"}
    | {"tick_wanted", "tick_acquire", "tick_release"},
    "grant_observer": {"api_version", "backlog", "schedule_text", "halt_reason"}
    | {"hidden_rows", "index_proof", "unindexed_children"}
    | {"doctor", "doctor_checks", "doctor_as_owner", "doctor_span"}
    | {"doctor_pg_cron", "doctor_cron_mode", "doctor_snapshots"}
    | {"cron_setting", "cron_home", "cron_command", "cron_knows_seconds", "recorded_cron_jobs"}
    | {"preview", "preview_json", "preview_facts", "deletion_reach", "file_triggers", "quoted_name"}
    | {"rows_estimated", "foreign_code"}
    | {"due_query", "due_statement", "due_function", "checked_due_function", "due_shift", "generated_name"}
    | {"equality"},
    "grant_author": {"quoted_name", "path_digest"}
    | {"attach_files", "detach_files", "detach_dropped", "attachment_findings"}
    | {"attached_functions", "attached_name", "attached_relations", "attachment_family", "attachment_index"}
    | {"attachment_source_code", "attachment_terms", "attachment_trigger_code", "build_attachment_index"}
    | {"check_attachable", "check_file_column", "check_row_expression", "checked_grace"}
    | {"declared_attachment"}
    | {"drop_attachment_leftovers", "filled", "forget_attachments", "grace_term", "make_attachment"}
    | {"record_attachment", "release_attachment", "table_key", "on_detached"}
    | {"enqueue_paths", "need_file", "need_files", "cancel_files", "nudge_workers"}
    | {"api_version", "create_expiry", "drop_expiry", "enable_expiry", "check_expiry_target", "expiry_key"}
    | {"expiry_columns", "expiry_assignments", "expiry_call", "expiry_act", "expiry_settings", "expiry_step"}
    | {"expiry_due", "expiry_index", "warn_expiry", "generated_name", "due_function", "due_query"}
    | {"checked_due_function", "equality", "other_meaning", "index_statements", "short_name"}
    | {"due_statement", "due_shift", "blocked_keys", "explained", "declared_expiry", "enter_expiry"}
    | {"forget_expiry", "index_proof", "unindexed_children", "hidden_rows"}
    | {"preview", "preview_json", "preview_facts", "deletion_reach", "file_triggers", "rows_estimated"}
    | {"foreign_code"},
}

Login = Callable[..., psycopg.Connection]


@pytest.fixture
def login(server: str, dsn: str, conn: psycopg.Connection) -> Iterator[Login]:
    """Make a role, grant it something, and log in as it; all is gone afterwards."""
    roles: list[str] = []
    connections: list[psycopg.Connection] = []

    def log_in(*grants: str) -> psycopg.Connection:
        role = f"pglapse_{secrets.token_hex(5)}"
        conn.execute(f"create role {role}")
        roles.append(role)
        for grant in grants:
            conn.execute(f"select lapse.{grant}(%s)", [role])
        session = psycopg.connect(dsn, autocommit=True, options="-c search_path=")
        connections.append(session)
        session.execute(f"set session authorization {role}")
        return session

    try:
        yield log_in
    finally:
        for session in connections:
            session.close()
        for role in roles:
            conn.execute(f"drop owned by {role}")
            conn.execute(f"drop role {role}")


def callable_by(session: psycopg.Connection) -> set[str]:
    """The routines of both schemas that the role may execute."""
    return {
        f"{schema}.{name}" if schema != "lapse" else name
        for schema, name in session.execute("""
            select n.nspname, p.proname
              from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
             where n.nspname in ('lapse', 'market') and has_function_privilege(p.oid, 'execute')
        """)
    }


def touchable_by(session: psycopg.Connection) -> set[tuple[str, str]]:
    """What the role may do with which relation of both schemas, also with single columns of it."""
    return set(
        session.execute("""
            select c.relname, v.privilege
              from pg_catalog.pg_class as c
              join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
             cross join unnest('{select,insert,update,delete,truncate,usage}'::text[]) as v (privilege)
             where n.nspname in ('lapse', 'market')
               and case
                       when c.relkind = 'S' and v.privilege in ('select', 'update', 'usage')
                       then has_sequence_privilege(c.oid, v.privilege)
                       when c.relkind in ('r', 'p', 'v', 'm') and v.privilege in ('delete', 'truncate')
                       then has_table_privilege(c.oid, v.privilege)
                       when c.relkind in ('r', 'p', 'v', 'm') and v.privilege <> 'usage'
                       then has_any_column_privilege(c.oid, v.privilege)
                   end
        """).fetchall()
    )


def denied(session: psycopg.Connection, command: str) -> bool:
    try:
        session.execute(command)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


def test_nothing_is_granted_to_public(conn):
    granted = conn.execute("""
        select o.kind, o.name, a.privilege_type
          from pg_catalog.pg_namespace as n
         cross join lateral (
               select 'routine', p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner))
                 from pg_catalog.pg_proc as p where p.pronamespace = n.oid
               union all
               select 'relation', c.oid::regclass::text, c.relacl
                 from pg_catalog.pg_class as c where c.relnamespace = n.oid
               union all
               select 'column', c.relname || '.' || a.attname, a.attacl
                 from pg_catalog.pg_attribute as a join pg_catalog.pg_class as c on c.oid = a.attrelid
                where c.relnamespace = n.oid
               union all
               select 'schema', n.nspname, n.nspacl) as o (kind, name, acl)
         cross join aclexplode(o.acl) as a
         where n.nspname in ('lapse', 'market') and a.grantee = 0
    """).fetchall()

    assert granted == []


def test_a_role_without_a_grant_can_do_nothing(login):
    nobody = login()

    assert callable_by(nobody) == set()
    assert touchable_by(nobody) == set()
    assert denied(nobody, "select lapse.enqueue_file('s', 'a')")


@pytest.mark.parametrize("grant", GRANTS)
def test_a_grant_gives_exactly_the_routines_of_the_job(login, grant):
    assert callable_by(login(grant)) == MAY_CALL[grant]


def test_a_worker_and_a_runner_have_no_right_on_any_table(login):
    assert touchable_by(login("grant_worker")) == set()
    assert touchable_by(login("grant_runner")) == set()


def test_an_application_may_insert_requests_and_read_nothing(login):
    assert touchable_by(login("grant_application")) == {("file_cleanup_queue", "insert")}


def test_an_observer_may_read_every_view_and_no_table(conn, login):
    views = conn.execute(
        "select c.relname, 'select' from pg_catalog.pg_class as c"
        " where c.relnamespace = 'lapse'::regnamespace and c.relkind = 'v'"
    ).fetchall()

    assert touchable_by(login("grant_observer")) == set(views)
    assert len(views) >= 4


def test_a_worker_does_its_job(conn, login):
    enqueue(conn, "a", "b")
    worker = login("grant_worker")

    worker.execute("listen file_cleanup_queue")
    worker.execute("select lapse.worker_hello('w', 'host', 1, '1', '{s}')")
    worker.execute("select lapse.storage_marker('s')")
    claims = exchange(worker, worker="w").claimed
    renewed = worker.execute(
        "select * from lapse.renew_files('w', %s, %s, '60 s')",
        [[claim.id for claim in claims], [claim.token for claim in claims]],
    ).fetchall()
    hand_in(worker, *(result(claim) for claim in claims), worker="w")
    worker.execute("select lapse.worker_beat('w', 2, 0, 10, false, '{}'), lapse.tick_wanted('auto')")
    worker.execute("call lapse.run_due('worker')")
    worker.execute("select lapse.worker_bye('w')")

    assert (len(claims), renewed) == (2, [])
    assert row(conn, "a") == row(conn, "b") == {}


def test_an_application_does_its_job(conn, login):
    application = login("grant_application")

    application.execute("select lapse.enqueue_file('s', 'a')")
    application.execute(
        "select lapse.enqueue_files(array[row('s', 'b', null, null, null, null, null)::lapse.file_request])"
    )
    application.execute("insert into lapse.file_cleanup_queue (storage, path, reason) values ('s', 'c', 'x')")
    application.execute("select lapse.cancel_file('s', 'a'), lapse.cancel_files('{s}', '{b}')")

    assert exchange(conn).paths == ["c"]
    assert denied(
        application, "insert into lapse.file_cleanup_queue (storage, path, attempts) values ('s', 'a', 1)"
    )
    assert denied(
        application, "insert into lapse.file_cleanup_queue (storage, path, generation) values ('s', 'a', 1)"
    )


def test_an_application_may_write_to_tables_of_its_own_with_an_index_on_the_digest(conn, login):
    application = login("grant_application")
    role = application.execute("select current_user").fetchone()[0]
    conn.execute("create schema app; create table app.f (path text)")
    conn.execute("create index on app.f (lapse.path_digest(path))")
    conn.execute(f"grant usage on schema app to {role}; grant insert on app.f to {role}")

    application.execute("insert into app.f values ('a')")


def test_a_runner_does_its_job(conn, login):
    conn.execute("update lapse.policy_state set next_run_at = now()")
    runner = login("grant_runner")

    runner.execute("call lapse.run('prune_file_log')")
    runner.execute("call lapse.run_due()")

    assert conn.execute("select count(*) from lapse.policy_state where last_status = 'ok'").fetchone() != (0,)
    assert denied(runner, "select lapse.pause('prune_file_log')")


def test_an_observer_does_its_job(conn, login):
    enqueue(conn, "a")
    conn.execute("select lapse.worker_hello('w', 'host', 1, '1', '{s}')")
    observer = login("grant_observer")

    for view in (
        "policy_status",
        "queue_status",
        "queue_by_storage",
        "queue_detail",
        "storage_status",
        "worker_status",
    ):
        assert observer.execute(f"select * from lapse.{view}").fetchall()
    assert observer.execute("select * from lapse.doctor()").fetchall()
    assert denied(observer, "select lapse.retry_files()")


def test_granting_twice_and_to_a_name_that_needs_quotes_works(conn, server):
    role = f'pglapse "{secrets.token_hex(5)}"'
    quoted = '"' + role.replace('"', '""') + '"'
    conn.execute(f"create role {quoted}")
    try:
        for grant in GRANTS * 2:
            conn.execute(f"select lapse.{grant}(%s)", [role])
    finally:
        conn.execute(f"drop owned by {quoted}; drop role {quoted}")


@pytest.mark.parametrize("grant", GRANTS)
def test_rights_are_given_to_no_unknown_role_and_never_to_public(conn, grant):
    for role, code in ((None, "LP001"), ("public", "LP001"), ("nobody of that name", "LP002")):
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(f"select lapse.{grant}(%s::name)", [role])
        assert (caught.value.sqlstate, bool(caught.value.diag.message_hint)) == (code, True)


def test_no_grant_lets_its_holder_grant(login):
    everything = login(*GRANTS)

    for grant in GRANTS:
        assert denied(everything, f"select lapse.{grant}('pg_monitor')")
