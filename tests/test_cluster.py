"""A cluster of one's own: it comes up, it goes, and it leaves other people's folders alone."""

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pglapse import cluster

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone has to lend the server to another user")


@pytest.fixture(scope="module")
def bindir() -> Path:
    try:
        return cluster.find_embedded()
    except FileNotFoundError:
        found = cluster.find_local()
    if found is None:
        pytest.skip("no PostgreSQL here to start")
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder right below the place for temporary files, which others may enter."""
    path = Path(tempfile.gettempdir()) / f"pglapse-test-{secrets.token_hex(4)}"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def ask(dsn: str, query: str) -> object:
    with psycopg.connect(dsn) as connection:
        return (connection.execute(query).fetchone() or (None,))[0]


def test_a_cluster_lives_as_long_as_its_block(bindir: Path, folder: Path) -> None:
    with cluster.throwaway(bindir, folder, {"work_mem": "7MB", "search_path": "it's"}) as dsn:
        assert ask(dsn, "show work_mem") == "7MB"
        assert ask(dsn, "show listen_addresses") == ""

    assert not (folder / "data" / "postmaster.pid").exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn)


def test_a_failing_block_stops_it_too(bindir: Path, folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), cluster.throwaway(bindir, folder):
        raise KeyboardInterrupt

    assert not (folder / "data" / "postmaster.pid").exists()


def test_nobody_else_gets_at_the_socket(bindir: Path, folder: Path) -> None:
    with cluster.throwaway(bindir, folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_too_deep_for_a_socket_is_no_obstacle(bindir: Path, folder: Path) -> None:
    with cluster.throwaway(bindir, folder.with_name(folder.name + "x" * 100)) as dsn:
        socket = Path(psycopg.conninfo.conninfo_to_dict(dsn)["host"])
        assert ask(dsn, "select 1") == 1

    assert not socket.exists()
    shutil.rmtree(folder.with_name(folder.name + "x" * 100))


def test_a_ctrl_c_reaches_no_program_that_is_run_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program notes the process group that it runs in: a terminal's Ctrl-C goes to the whole of ours."""
    folder.mkdir(mode=0o755)
    notes = folder / "notes"
    notes.touch(0o666)
    notes.chmod(0o666)
    bindir = folder / "bin"
    bindir.mkdir()
    programs = {"postgres": "echo 15", "initdb": f"mkdir -p {folder}/own/data", "pg_ctl": "", "test": ""}
    for name, act in programs.items():
        script = f"#!/bin/sh\nread -r _ _ _ _ group _ </proc/$$/stat; echo {name} $group >>{notes}\n{act}\n"
        (bindir / name).write_text(script)
        (bindir / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bindir}:{os.environ['PATH']}")

    assert cluster.major(bindir) == 15
    made = cluster.create(bindir, folder / "own")
    cluster.start(made)
    (folder / "own" / "data" / "postmaster.pid").touch()
    cluster.stop(made)

    noted = [line.split() for line in notes.read_text().splitlines()]
    expected = {"postgres", "initdb", "pg_ctl"} | ({"test"} if os.geteuid() == 0 else set())
    assert {name for name, _ in noted} == expected
    assert str(os.getpgrp()) not in {group for _, group in noted}


def test_a_cluster_that_could_not_be_made_leaves_no_folder_for_its_socket(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    mkdtemp = tempfile.mkdtemp
    monkeypatch.setattr(tempfile, "mkdtemp", lambda **options: made.append(mkdtemp(**options)) or made[-1])
    folder.mkdir(mode=0o755)
    (folder / "initdb").write_text("#!/bin/sh\ntest $1 = --version || { echo no such luck; exit 1; }\n")
    (folder / "initdb").chmod(0o755)

    with pytest.raises(RuntimeError, match="no such luck"):
        cluster.create(folder, folder / ("x" * 100))

    assert len(made) == 1
    assert not Path(made[0]).exists()


def test_a_server_that_does_not_start_says_why(bindir: Path, folder: Path) -> None:
    settings = {"shared_preload_libraries": "no_such_library"}

    with pytest.raises(RuntimeError, match="no_such_library"), cluster.throwaway(bindir, folder, settings):
        pass


@needs_root
def test_programs_out_of_reach_are_copied_and_their_folders_left_alone(
    bindir: Path, folder: Path, tmp_path: Path
) -> None:
    package = bindir.resolve().parent.parent
    hidden = tmp_path / "hidden"
    shutil.copytree(bindir.resolve().parent, hidden / package.name / "prefix", symlinks=True)
    if (bundled := package.with_name(f"{package.name}.libs")).is_dir():
        shutil.copytree(bundled, hidden / bundled.name)
    hidden.chmod(0o700)

    with cluster.throwaway(hidden / package.name / "prefix" / "bin", folder) as dsn:
        assert ask(dsn, "select 1") == 1

    assert stat.S_IMODE(hidden.stat().st_mode) == 0o700


@needs_root
def test_a_folder_that_the_servers_user_can_not_enter_is_refused(bindir: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    inside = tmp_path / "inside"

    with pytest.raises(RuntimeError, match="can't get into"), cluster.throwaway(bindir, inside):
        pass
