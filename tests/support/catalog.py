"""What a database holds, as text to compare: pg_dump's view of it, and ours of what pg_dump leaves out."""

import re
import subprocess

import psycopg

from tests.support.install import client

# Every object that is not PostgreSQL's own, by its full name: nothing may hide where no dump looks.
# What has a number for a name (toast tables, triggers of foreign keys) is left out.
OBJECTS = """
select format('%s %s', i.type, i.identity)
  from (select 'pg_class'::regclass as catalog, oid from pg_class
                   where relnamespace <> 'pg_toast'::regnamespace
        union all select 'pg_proc'::regclass, oid from pg_proc
        union all select 'pg_type'::regclass, oid from pg_type where typnamespace <> 'pg_toast'::regnamespace
        union all select 'pg_namespace'::regclass, oid from pg_namespace where nspname !~ '^pg_(toast_)?temp_'
        union all select 'pg_trigger'::regclass, oid from pg_trigger
                   where tgname !~ '^RI_ConstraintTrigger'
        union all select 'pg_constraint'::regclass, oid from pg_constraint
        union all select 'pg_attrdef'::regclass, oid from pg_attrdef
        union all select 'pg_rewrite'::regclass, oid from pg_rewrite
        union all select 'pg_policy'::regclass, oid from pg_policy
        union all select 'pg_operator'::regclass, oid from pg_operator
        union all select 'pg_cast'::regclass, oid from pg_cast
        union all select 'pg_collation'::regclass, oid from pg_collation
        union all select 'pg_conversion'::regclass, oid from pg_conversion
        union all select 'pg_extension'::regclass, oid from pg_extension
        union all select 'pg_event_trigger'::regclass, oid from pg_event_trigger
        union all select 'pg_default_acl'::regclass, oid from pg_default_acl
        union all select 'pg_publication'::regclass, oid from pg_publication
        union all select 'pg_language'::regclass, oid from pg_language
        union all select 'pg_statistic_ext'::regclass, oid from pg_statistic_ext
        union all select 'pg_foreign_server'::regclass, oid from pg_foreign_server) as o
 cross join lateral pg_identify_object(o.catalog, o.oid, 0) as i
 where o.oid >= 16384
 order by 1
"""

DATABASE = """
select format('database acl %s comment %s settings %s', d.datacl, shobj_description(d.oid, 'pg_database'),
              (select array_agg(s.setconfig order by s.setrole)
                 from pg_db_role_setting as s where s.setdatabase = d.oid))
  from pg_database as d where d.datname = current_database()
"""

# jobid is left out: a job taken away and made again has another.
JOBS = """
select format('job %s %s %s %s %s', jobname, schedule, command, database, active) from cron.job order by 1
"""


def catalog(dsn: str) -> list[str]:
    """Everything that the database of ``dsn`` holds but rows."""
    lines = dump(dsn)
    with psycopg.connect(dsn) as connection:
        for query in (OBJECTS, DATABASE):
            lines += [line for (line,) in connection.execute(query)]
        if connection.execute("select to_regclass('cron.job')").fetchone() != (None,):
            lines += [line for (line,) in connection.execute(JOBS)]
    return lines


def rows(dsn: str) -> dict[str, list[str]]:
    """The rows that an installation brings, without its clock times."""
    queries = {
        "policies": "select to_jsonb(p) - array['created_at', 'updated_at']"
        "              from lapse.policy as p order by name",
        "settings": "select to_jsonb(s) from lapse.setting as s",
        "sources": "select to_jsonb(s) - 'registered_at' from lapse.file_source as s order by name",
        "versions": "select to_jsonb(v) from lapse.pglapse_version as v order by 1",
    }
    with psycopg.connect(dsn) as connection:
        return {name: [str(row) for (row,) in connection.execute(query)] for name, query in queries.items()}


def dump(dsn: str) -> list[str]:
    """The lines of ``pg_dump --schema-only``: definitions, owners, rights, comments."""
    done = subprocess.run(
        [client("pg_dump"), "--schema-only", "--dbname", dsn], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise AssertionError(f"pg_dump failed: {done.stderr}")
    # \restrict carries a random word, and some servers stamp each column with a number that only grows.
    return [
        re.sub(r"pg_attver=\d+", "pg_attver=...", line)
        for line in done.stdout.splitlines()
        if not line.startswith(("\\restrict", "\\unrestrict"))
    ]
