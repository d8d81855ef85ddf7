"""``python -m tests.support.provide``: PostgreSQL with pg_cron, and PgBouncer, by apt, if nothing is there.

Nothing is installed where a server was named, where Docker answers, or where one is here already. Where this
machine does not allow it, that is said, and the tests go on with what they find.
"""

import os
import re
import shutil
import subprocess
from contextlib import suppress

from pglapse import cluster
from tests.support.container import NoContainer, postgres_image
from tests.support.server import DSN


def main() -> None:
    """Say in one line what was done, or why nothing was."""
    if os.environ.get(DSN):
        return
    with suppress(NoContainer):
        postgres_image()
        return
    local = cluster.find_local()
    if local and cluster.has_cron(local):
        return
    print(f"server: {provided(local and cluster.major(local))}")


def provided(installed: int | None) -> str:
    """Install pg_cron, and the server that it belongs to; returns what came of it."""
    if not shutil.which("apt-get"):
        return "no apt here, so tests of pg_cron are skipped unless PGLAPSE_TEST_DSN names a server with it"
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if root and subprocess.run([*root, "true"], capture_output=True, check=False).returncode:
        return (
            "not root, so tests of pg_cron are skipped: sudo apt-get install postgresql-15-cron, or the like"
        )
    if not packages():
        subprocess.run([*root, "apt-get", "-qq", "update"], check=False)
    versions = packages()
    version = installed if installed in versions else max(versions, default=None)
    if version is None:
        return "apt knows no postgresql-NN-cron, so tests of pg_cron are skipped"
    command = [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-qq",
        "-y",
        "--no-install-recommends",
        "install",
    ]
    names = [f"postgresql-{version}", f"postgresql-{version}-cron", "pgbouncer"]
    done = subprocess.run([*root, *command, *names], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"apt-get install {' '.join(names)} failed: {done.stderr.strip().splitlines()[-1:]}"
    return f"installed {', '.join(names)}"


def packages() -> list[int]:
    """The versions of PostgreSQL that apt has pg_cron for."""
    done = subprocess.run(
        ["apt-cache", "search", "--names-only", "^postgresql-[0-9]+-cron$"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [int(number) for number in re.findall(r"^postgresql-(\d+)-cron", done.stdout, re.MULTILINE)]
    return [number for number in found if number >= cluster.OLDEST]


if __name__ == "__main__":
    main()
