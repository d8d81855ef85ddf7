"""What a campaign adds to a database with pglapse in it: roles, a file source, marks and a witness.

- Two login roles: the worker's, with what lapse.grant_worker gives and nothing else, and the application's.
- ``chaos.txn``: each transaction of an application leaves its number here, so that one whose COMMIT was not
  answered is told from the database's content, also after a failover, where a transaction number may have
  been given out twice.
- ``chaos.reference``: rows that need a file, asked through ``chaos.files_in_use``.
- ``chaos.claim`` and ``chaos.release``: triggers' notes of each lease, from when until when, and of each that
  was given up before its end, written in the transaction that did it. Only the database knows the moment of
  a claim. What it notes is checked against the journals outside.
"""

from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from pglapse import cluster
from pglapse.cluster import Cluster
from tests.support.install import alembic

NAME = "chaos"
WORKER, APPLICATION = "chaos_worker", "chaos_application"

SETTINGS = {
    "fsync": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "deadlock_timeout": "200ms",
    "shared_buffers": "64MB",
    "log_min_messages": "error",
}

SETUP = f"""
create role {WORKER} login;
create role {APPLICATION} login;
select lapse.grant_worker('{WORKER}');
select lapse.grant_application('{APPLICATION}');
select market.grant_application('{APPLICATION}');
update lapse.setting set backoff_base = '0.2 s', backoff_cap = '2 s';

create schema chaos;
grant usage on schema chaos to {APPLICATION};
-- To see whether a cancel came too late because somebody else had the row.
grant select (storage, path, cancelled_at) on lapse.file_cleanup_queue to {APPLICATION};

create table chaos.txn (id text primary key);
grant select, insert on chaos.txn to {APPLICATION};

create table chaos.reference (id text primary key, storage text not null, path text not null);
create index on chaos.reference (storage, lapse.path_digest(path));
grant select, insert, delete on chaos.reference to {APPLICATION};

create function chaos.files_in_use(p_storages text[], p_paths text[])
    returns table (storage text, path text, until timestamptz)
    language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select distinct r.storage, r.path, null::timestamptz
      from unnest(p_storages, p_paths) as a (storage, path)
      join chaos.reference as r
        on r.storage = a.storage and lapse.path_digest(r.path) = lapse.path_digest(a.path)
$$;
select lapse.register_file_source('chaos', 'chaos.files_in_use');

create table chaos.claim (
    id bigint generated always as identity primary key,
    storage text not null, path text not null, token bigint not null, worker text not null,
    leased_at timestamptz not null, leased_until timestamptz not null,
    at timestamptz not null default clock_timestamp()
);
create function chaos.witness() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into chaos.claim (storage, path, token, worker, leased_at, leased_until)
    values (new.storage, new.path, new.lease_token, new.leased_by, new.leased_at, new.leased_until);
    return null;
end;
$$;
create table chaos.release (
    storage text not null, path text not null, token bigint not null,
    at timestamptz not null default clock_timestamp()
);
create function chaos.witness_release() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
begin
    insert into chaos.release (storage, path, token) values (old.storage, old.path, old.lease_token);
    return null;
end;
$$;
create trigger witness_end after delete on lapse.file_cleanup_queue
    for each row when (old.lease_token is not null) execute function chaos.witness_release();
create trigger witness_release after update on lapse.file_cleanup_queue
    for each row when (old.lease_token is not null and new.lease_token is null)
    execute function chaos.witness_release();
create trigger witness after update on lapse.file_cleanup_queue
    for each row
    when (new.lease_token is not null
          and (new.lease_token, new.leased_until) is distinct from (old.lease_token, old.leased_until))
    execute function chaos.witness();
"""


@dataclass(frozen=True)
class Database:
    """How everybody gets to the database of a campaign."""

    admin: str
    worker: str
    application: str


def make(folder: Path, settings: dict[str, str] | None = None) -> Cluster:
    """A new cluster that keeps its promises (fsync on); not yet started."""
    bindir = cluster.find_local() or cluster.find_embedded()
    return cluster.create(bindir, folder, {**SETTINGS, **(settings or {})})


def change(server: Cluster, **settings: str) -> None:
    """Change settings of a server that does not run."""
    with (server.folder / "data" / "postgresql.conf").open("a") as conf:
        conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())


def install(admin: str) -> str:
    """Make the campaign's database on a running server; returns a superuser's DSN for it."""
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(f"create database {NAME}")
    own = make_conninfo(admin, dbname=NAME)
    alembic(own, "upgrade", "heads")
    with psycopg.connect(own) as conn:
        conn.execute(SETUP)
    return own


def reached_by(admin: str, way: str | None = None) -> Database:
    """The roles' DSNs: straight through the administrator's way, or through ``way`` (a proxy, a pooler)."""
    way = way or admin
    return Database(
        admin,
        make_conninfo(way, dbname=NAME, user=WORKER, connect_timeout=3),
        make_conninfo(way, dbname=NAME, user=APPLICATION, connect_timeout=3),
    )
