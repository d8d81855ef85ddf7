"""systemd is told when the worker is ready, that it is alive, what it does and that it stops."""

import os
import secrets
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pglapse.supervisor import Supervisor
from tests.support.poll import until
from tests.support.running import door, worker


class Systemd:
    """What stands at the other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.setblocking(False)
        self._line.bind("\0" + address[1:] if address.startswith("@") else address)
        self._heard: list[str] = []

    def heard(self) -> list[str]:
        """Every message so far, in order."""
        while True:
            try:
                self._heard.append(self._line.recv(65536).decode())
            except BlockingIOError:
                return list(self._heard)

    def forget(self) -> None:
        self.heard()
        self._heard.clear()

    def close(self) -> None:
        self._line.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    one = Systemd(str(tmp_path / "notify") if request.param == "path" else f"@pglapse/{secrets.token_hex(8)}")
    yield one
    one.close()


def told(systemd: Systemd, **more: str) -> Supervisor:
    return Supervisor({"NOTIFY_SOCKET": systemd.address, **more})


def test_each_message_arrives_whole_on_either_kind_of_socket(systemd: Systemd) -> None:
    supervisor = told(systemd)

    supervisor.ready()
    supervisor.status("3 files deleted")
    supervisor.stopping()

    assert systemd.heard() == ["READY=1", "STATUS=3 files deleted", "STOPPING=1"]


def test_what_has_been_said_is_not_said_again(systemd: Systemd) -> None:
    supervisor = told(systemd)
    for _ in range(2):
        supervisor.ready()
        supervisor.status("idle")

    assert systemd.heard() == ["READY=1", "STATUS=idle"]


def test_a_line_end_in_the_status_begins_no_other_message(systemd: Systemd) -> None:
    told(systemd).status("storage a\nWATCHDOG=trigger: \udcff away")

    [message] = systemd.heard()
    assert "\n" not in message


@pytest.mark.parametrize("address", ["", "@" + "x" * 200, "/nowhere/at/all", "vsock:2:1", "relative"])
def test_without_anybody_who_listens_nothing_happens(address: str) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"})

    supervisor.ready()
    supervisor.alive()
    supervisor.status("x")
    supervisor.stopping()


def test_a_supervisor_that_reads_nothing_holds_nothing_up(systemd: Systemd) -> None:
    supervisor = told(systemd)

    for number in range(2000):
        supervisor.status(f"{number} " + "x" * 390)


def test_signs_of_life_come_at_half_of_the_watchdogs_time(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("pglapse.supervisor.monotonic", lambda: now)
    supervisor = told(systemd, WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid()))
    counts = []
    for seconds in (0.0, 4.9, 0.2, 4.9, 0.2):
        now += seconds
        supervisor.alive()
        counts.append(systemd.heard().count("WATCHDOG=1"))

    assert counts == [1, 1, 2, 2, 3]


@pytest.mark.parametrize(
    "more",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}],
)
def test_without_a_watchdog_there_are_no_signs_of_life(systemd: Systemd, more: dict[str, str]) -> None:
    supervisor = told(systemd, **more)

    supervisor.alive()

    assert systemd.heard() == []


@pytest.fixture
def config(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    path = tmp_path / "pglapse.toml"
    path.write_text(f'[storage.public]\nkind = "local"\nroot = "{root}"\n')
    return path


@pytest.mark.parametrize("systemd", ["abstract"], indirect=True)
def test_a_worker_is_ready_once_it_has_asked_for_files_and_says_what_it_does(
    conn: psycopg.Connection, dsn: str, config: Path, systemd: Systemd
) -> None:
    more = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "400000"}
    conn.execute("insert into lapse.storage (name) values ('public')")  # nothing to do for the greeting
    with (
        psycopg.connect(dsn) as operator,
        door(dsn) as way,
        worker(way.dsn, config, **more) as running,
    ):
        until(lambda: any("waiting for the database" in line for line in systemd.heard()))
        operator.execute("lock table lapse.file_cleanup_queue in access exclusive mode")
        way.open()
        until(lambda: any("lock timeout" in line for line in systemd.heard()))
        assert "READY=1" not in systemd.heard()
        operator.rollback()
        until(lambda: "READY=1" in systemd.heard())
        until(lambda: any("0 files deleted or missing" in line for line in systemd.heard()))
        systemd.forget()
        until(lambda: systemd.heard().count("WATCHDOG=1") >= 3)

        running.process.send_signal(signal.SIGTERM)
        assert running.ends() == 0

    assert "STOPPING=1" in systemd.heard()


@pytest.mark.parametrize("systemd", ["path"], indirect=True)
def test_a_worker_whose_main_loop_stands_still_gives_no_sign_of_life(
    dsn: str, config: Path, systemd: Systemd
) -> None:
    stuck = """
import os, threading, pglapse.drain
rest = pglapse.drain.Worker.rest
def stick(*arguments):
    os.write(2, b"stuck\\n")
    threading.Event().wait()
pglapse.drain.Worker.rest = stick
"""
    more = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "200000"}
    with worker(dsn, config, spoilt=stuck, **more) as running:
        running.says("stuck")
        systemd.forget()

        with pytest.raises(AssertionError):
            until(systemd.heard, seconds=1)


@pytest.mark.parametrize("systemd", ["path"], indirect=True)
def test_a_worker_whose_storages_are_all_away_is_ready_and_says_so(
    dsn: str, config: Path, systemd: Systemd
) -> None:
    away = """
from pglapse.storage import Away
from pglapse.storage.local import LocalStorage
def check(self):
    raise Away("the disk is gone")
LocalStorage.check = check
"""
    with worker(dsn, config, spoilt=away, NOTIFY_SOCKET=systemd.address):
        until(lambda: "READY=1" in systemd.heard())
        until(lambda: any("storage public: the disk is gone" in line for line in systemd.heard()))
