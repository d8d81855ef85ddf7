"""What `docker compose up` does before the worker starts; all of it may run again and again.

Connects as libpq's PG* variables say, as a role that may create schemas, jobs and roles.
"""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
from psycopg import sql

WORKER = "pglapse_worker"


def main() -> None:
    upgraded = subprocess.run(["pglapse", "upgrade", "heads"], check=False)
    if upgraded.returncode:  # it has said why
        sys.exit(upgraded.returncode)
    password = Path(os.environ["WORKER_PASSWORD_FILE"]).read_text(encoding="utf-8").strip()
    with psycopg.connect() as connection:
        for jobname, schedule, command in connection.execute("select * from lapse.schedule()"):
            print(f"{jobname}: {schedule}, {command}")
        known = connection.execute("select from pg_roles where rolname = %s", [WORKER]).fetchone() is not None
        connection.execute(
            sql.SQL("{} role {} login password {}").format(
                sql.SQL("alter" if known else "create"), sql.Identifier(WORKER), sql.Literal(password)
            )
        )
        for grant in ("grant_worker", "grant_observer"):  # the health check reads lapse.worker_status
            connection.execute(sql.SQL("select lapse.{}(%s)").format(sql.Identifier(grant)), [WORKER])


if __name__ == "__main__":
    main()
