"""What a sweep for orphans needs: memory and time, beside the script that it replaces, in one run.

    make bench-sweep                              # 10,000, 100,000 and 1,000,000 files
    python -m benchmarks.sweep --files 10000      # other numbers

Half of the files are temporary uploads that the database knows, half are orphans; all lie in one folder. Two
ways to find the orphans:

  pglapse    pglapse sweep --dry-run: streams the folder, asks the database 1,000 paths at a time
  script     what people write: every path of the table into a set, every file of the tree into a list

Each is a process of its own; memory is the most that it ever had resident. The clock of both is two days
ahead, since nobody can give a file an old ctime.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import server
from pglapse.demo.process import environment, install

DISK = "/var/tmp"  # noqa: S108 (a disk is what is wanted)
AHEAD = "import time; now = time.time; time.time = lambda: now() + 2 * 86400"
PGLAPSE = f"{AHEAD}; from pglapse.__main__ import main; main()"
SCRIPT = f"""{AHEAD}
import os, sys, psycopg
root = sys.argv[1]
with psycopg.connect(os.environ["DATABASE_URL"]) as conn:
    known = {{path for (path,) in conn.execute("select path from market.temp_uploads")}}
    files = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    before = time.time() - 86400
    old = [file for file in files if max(os.stat(file).st_mtime, os.stat(file).st_ctime) < before]
    print(len([file for file in old if os.path.relpath(file, root) not in known]))
"""
KNOWN = """
with u as (insert into market.users (display_name, email) values ('ann', 'ann@example.org') returning id)
insert into market.temp_uploads (user_id, storage, path, expires_at)
select u.id, 'private', 'tmp/' || n, now() + interval '9 days' from u, generate_series(1, %s, 2) as n
"""


def main() -> int:
    """Make the files, measure both ways for each number of them, print a table."""
    first = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep", description=first)
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    print(f"{'files':>10} {'way':<8} {'orphans':>9} {'seconds':>8} {'files/s':>9} {'memory':>8}")
    with server.running() as own, tempfile.TemporaryDirectory(prefix="pglapse-sweep-", dir=DISK) as name:
        for count in options.files:
            folder = Path(name) / str(count)
            measure(own, folder, count)
            shutil.rmtree(folder)
    return 0


def measure(own: server.Server, folder: Path, count: int) -> None:
    """One number of files, both ways."""
    dsn = own.create(f"sweep_{count}")
    install(dsn)
    root = folder / "private"
    (root / "tmp").mkdir(parents=True)
    for n in range(1, count + 1):
        os.close(os.open(root / "tmp" / str(n), os.O_CREAT | os.O_WRONLY))
    config = folder / "pglapse.toml"
    config.write_text(f'[storage.private]\nkind = "local"\nroot = {json.dumps(str(root))}\ntemp = ["tmp"]\n')
    with own.connect(f"sweep_{count}") as conn:
        conn.execute(KNOWN, [count])
        conn.execute("vacuum analyze")
    served = [sys.executable, "-m", "pglapse", "worker", "--once", "--config", str(config)]
    subprocess.run(served, env=environment(dsn), check=True, capture_output=True)  # the root gets its marker
    asked = ["sweep", "--dry-run", "--json", "--config", str(config)]
    asked += ["--most-files", str(count), "--most-share", "1"]
    for way, command in (
        ("pglapse", [sys.executable, "-c", PGLAPSE, *asked]),
        ("script", [sys.executable, "-c", SCRIPT, str(root)]),
    ):
        said, seconds, memory = run(command, environment(dsn))
        orphans = json.loads(said)["orphans"] if way == "pglapse" else int(said)
        if orphans not in (count // 2, count // 2 + 1):  # the script takes the marker for an orphan
            raise SystemExit(f"{way} found {orphans} orphans among {count} files")
        rate = f"{count / seconds:,.0f}"
        print(f"{count:>10,} {way:<8} {orphans:>9,} {seconds:>8.1f} {rate:>9} {memory:>5.0f} MB", flush=True)


def run(command: list[str], environ: dict[str, str]) -> tuple[str, float, float]:
    """What a process said, how long it took, and its largest resident size in MB."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, env=environ, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command[-1]} ended with {process.returncode}")
        out.seek(0)
        return out.read(), time.monotonic() - began, usage.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
