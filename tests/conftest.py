"""Fixtures: one server a session, one migrated template, one database a test."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from tests.support import databases
from tests.support.databases import on
from tests.support.server import DSN, NotHere, described, found

__all__ = ["on"]

STACK = pytest.StashKey[ExitStack]()
HEADER = pytest.StashKey[str]()
NO_SERVER = "PGLAPSE_TEST_NO_SERVER"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-cron",
        action="store_true",
        help="a test that needs pg_cron and is skipped counts as failed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start the server before anything else, once for all processes of a parallel run."""
    if hasattr(config, "workerinput") or config.option.collectonly or config.option.help:
        return
    stack = config.stash[STACK] = ExitStack()
    before = os.environ.get(DSN)
    try:
        server = stack.enter_context(found())
    except NotHere as reason:
        config.stash[HEADER] = os.environ[NO_SERVER] = f"no PostgreSQL: {reason}"
        return
    config.stash[HEADER] = described(server)
    os.environ[DSN] = server.dsn
    stack.enter_context(databases.opened(server.dsn))
    stack.callback(_restore, before)


def _restore(before: str | None) -> None:
    os.environ.pop(DSN, None)
    if before is not None:
        os.environ[DSN] = before


def pytest_unconfigure(config: pytest.Config) -> None:
    if (stack := config.stash.get(STACK, None)) is not None:
        stack.close()


def pytest_report_header(config: pytest.Config) -> str | None:
    header = config.stash.get(HEADER, None)
    return f"server: {header}" if header else None


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that make jobs share one pg_cron: one process of a parallel run does them all.

    It begins with them, and then come other groups: what can't be shared out must not be left to the end.
    """
    for item in items:
        if item.get_closest_marker("cron"):
            item.add_marker(pytest.mark.xdist_group("cron"))
    items.sort(
        key=lambda item: (not item.get_closest_marker("cron"), not item.get_closest_marker("xdist_group"))
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.skipped and item.config.option.require_cron and item.get_closest_marker("cron"):
        report.outcome = "failed"
        report.longrepr = f"--require-cron, yet skipped: {call.excinfo.value if call.excinfo else ''}"
    return report


@pytest.fixture(scope="session")
def server() -> str:
    """A superuser's DSN, on database postgres or the like."""
    if reason := os.environ.get(NO_SERVER):
        pytest.fail(reason)
    return os.environ[DSN]


@pytest.fixture(scope="session")
def template(server: str) -> str:
    """The name of a database in which everything is installed, to be cloned by `dsn`."""
    return databases.installed(server)


@pytest.fixture
def dsn(server: str, template: str) -> Iterator[str]:
    """A database of the test's own, with everything installed; dropped afterwards."""
    with databases.database(server, template) as own:
        yield own


@pytest.fixture
def untouched(server: str, template: str) -> Iterator[str]:
    """A database of the test's own, as the installation left it: nobody has any right; dropped."""
    with databases.database(server, databases.untouched(template)) as own:
        yield own


@pytest.fixture
def empty(server: str) -> Iterator[str]:
    """A database of the test's own with nothing in it; dropped afterwards."""
    with databases.database(server) as own:
        yield own


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection with an empty search_path, so that an unqualified name fails."""
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=") as connection:
        yield connection


@pytest.fixture
def own(dsn: str) -> Iterator[psycopg.Connection]:
    """The same, for modules whose own `conn` is a transaction that is rolled back."""
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=") as connection:
        yield connection


@pytest.fixture(scope="module")
def shared(server: str, template: str) -> Iterator[str]:
    """One database for a module's tests; what they commit, the next one takes out."""
    with databases.database(server, template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def clean(server: str, template: str) -> Iterator[str]:
    """Another one, for those that roll back."""
    with databases.database(server, template) as dsn:
        yield dsn


@pytest.fixture
def tx(clean: str) -> Iterator[psycopg.Connection]:
    """A transaction that is rolled back."""
    with psycopg.connect(clean, options="-c search_path=") as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def cron_server(server: str) -> Iterator[str]:
    """The DSN of the database where pg_cron lives, for one test at a time; for tests marked `cron`."""
    with databases.cron_home(server) as home:
        if home is None:
            pytest.skip("this server has no pg_cron (shared_preload_libraries, cron.database_name)")
        yield home
