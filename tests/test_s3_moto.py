"""Storages of kind s3 against moto's server: what really goes, and the whole way from a row to there."""

import logging
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from psycopg.types.json import Jsonb

from pglapse.storage import Away, Batch, Expected, File, Outcome
from pglapse.storage.s3 import S3Storage, open_s3
from pglapse.storage.s3.settings import S3Settings
from tests.support.poll import until
from tests.support.running import worker
from tests.support.s3 import NAME, nobodys_credentials, serving
from tests.support.s3_keys import PREFIX, neighbours, paths
from tests.support.storage import delete


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module", autouse=True)
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        nobodys_credentials(patch, tmp_path_factory.mktemp("aws"))
        yield


@pytest.fixture(scope="module")
def s3(url: str, credentials: None) -> Any:
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1")


@pytest.fixture
def bucket(url: str, s3: Any) -> str:
    """A bucket with nothing in it."""
    emptied(url, s3)
    return NAME


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as one:
        yield one


@pytest.fixture(scope="module")
def storage(url: str, pool: ThreadPoolExecutor, credentials: None) -> S3Storage:
    return open_s3(S3Settings("s", NAME, prefix="up/", endpoint_url=url), pool, threads=4)


def emptied(url: str, s3: Any) -> None:
    reset = urllib.request.Request(f"{url}/moto-api/reset", method="POST")  # noqa: S310
    urllib.request.urlopen(reset).close()  # noqa: S310
    s3.create_bucket(Bucket=NAME)


def put(s3: Any, *keys: str, body: bytes = b"x") -> list[str]:
    for key in keys:
        s3.put_object(Bucket=NAME, Key=key, Body=body)
    return list(keys)


def present(s3: Any) -> set[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=NAME)
    return {entry["Key"] for page in pages for entry in page.get("Contents", [])}


def versions(s3: Any) -> list[tuple[str, str]]:
    page = s3.list_object_versions(Bucket=NAME)
    return [(kind, entry["Key"]) for kind in ("Versions", "DeleteMarkers") for entry in page.get(kind, [])]


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@example(wanted={"a", "\x01", "a ", "%41", "A", "a+b", "foo[1]", "&<>\"'", "🗑", "tab\t"})
@given(wanted=st.sets(paths.filter(lambda path: "\n" not in path), min_size=1, max_size=4))
def test_exactly_the_named_keys_go(url, s3, storage, wanted):
    emptied(url, s3)
    near = {path for path in neighbours(*wanted) if "\n" not in path}  # moto has no way to it
    put(s3, *(PREFIX + path for path in wanted | near), *(path for path in wanted if PREFIX not in path))
    before = present(s3)

    outcomes = delete(storage, sorted(wanted))

    assert outcomes == [Outcome("deleted")] * len(wanted)
    assert before - present(s3) == {PREFIX + path for path in wanted}


def test_a_key_of_1024_bytes_goes(bucket, s3, storage):
    path = "é" * 510 + "x"
    put(s3, f"up/{path}")

    assert delete(storage, [path]) == [Outcome("deleted")]
    assert present(s3) == set()


def test_a_guarded_object_goes_only_if_it_is_the_same(bucket, s3, storage):
    put(s3, "up/a", "up/b", "up/c", body=b"123")
    tag = s3.head_object(Bucket=NAME, Key="up/a")["ETag"]
    files = [
        File("a", (Expected(size=3, etag=tag),)),
        File("b", (Expected(etag="no"),)),
        File("c", (Expected(size=4), Expected(etag=tag))),
        File("d", (Expected(size=4),)),
    ]

    outcomes = delete(storage, files)

    assert [outcome.verdict for outcome in outcomes] == ["deleted", "changed", "deleted", "missing"]
    assert outcomes[0].bytes == 3
    assert present(s3) == {"up/b"}


def test_versions_are_refused_marked_or_purged_as_the_setting_says(bucket, url, s3, pool):
    s3.put_bucket_versioning(Bucket=NAME, VersioningConfiguration={"Status": "Enabled"})
    odd = ["a", "a b+c", "tab\t", "é"]
    near = ["ab", "a b c", "a b", "tab", "e\u0301"]
    put(s3, *odd, *odd, *near, body=b"12345")

    def made(how: Any) -> S3Storage:
        return open_s3(S3Settings("s", NAME, endpoint_url=url, versions=how), pool, threads=4)

    with pytest.raises(Away, match="keeps versions"):
        made("refuse").delete(Batch([File("a")]))
    assert present(s3) == {*odd, *near}

    assert delete(made("marker"), ["a"]) == [Outcome("deleted")]
    assert present(s3) == {*odd, *near} - {"a"}
    assert versions(s3).count(("Versions", "a")) == 2

    assert delete(made("purge"), odd) == [Outcome("deleted", bytes=10)] * len(odd)
    assert sorted(versions(s3)) == sorted(("Versions", key) for key in near)


def test_more_versions_than_a_page_holds_all_go(bucket, url, s3, pool, monkeypatch):
    monkeypatch.setattr("pglapse.storage.s3.client.PAGE", 2)
    s3.put_bucket_versioning(Bucket=NAME, VersioningConfiguration={"Status": "Enabled"})
    put(s3, *["a"] * 7, "a0", "a0", "a1")
    storage = open_s3(S3Settings("s", NAME, endpoint_url=url, versions="purge"), pool)

    assert delete(storage, ["a"]) == [Outcome("deleted", bytes=7)]
    assert sorted(key for _, key in versions(s3)) == ["a0", "a0", "a1"]


def test_a_bucket_that_is_not_there_is_away(bucket, url, pool):
    storage = open_s3(S3Settings("s", "nowhere", endpoint_url=url), pool)

    with pytest.raises(Away, match="there is no such bucket"):
        storage.check()


def test_a_worker_deletes_from_a_bucket_and_a_folder_side_by_side(conn, dsn, tmp_path, bucket, url, s3):
    root = tmp_path / "files"
    root.mkdir()
    names = [f"d/{number}.jpg" for number in range(60)]
    put(s3, *(f"up/{name}" for name in names), "up/stays", "up/same", "up/other", "d/1.jpg", body=b"123")
    for name in ("1.jpg", "2.jpg", "stays"):
        (root / name).write_text("x")
    config = tmp_path / "pglapse.toml"
    config.write_text(
        f'[storage.disk]\nkind = "local"\nroot = "{root}"\n'
        f'[storage.objects]\nkind = "s3"\nbucket = "{NAME}"\nprefix = "up"\nendpoint_url = "{url}"\n'
    )
    queue(conn, "objects", *names, "../d/1.jpg")
    queue(conn, "disk", "1.jpg", "2.jpg")
    queue(conn, "objects", "same", expected={"size": 3, "etag": '"202cb962ac59075b964b07152d234b70"'})
    queue(conn, "objects", "other", expected={"size": 4})

    def refused() -> list[tuple[str, str]]:
        rows = conn.execute("select path, last_error, dead_at from lapse.file_cleanup_queue").fetchall()
        return [(path, error) for path, error, dead in rows if dead and len(rows) == 1]

    with worker(dsn, config):
        [(path, error)] = until(refused)

    assert path == "../d/1.jpg"
    assert "'.' or '..'" in error
    assert present(s3) == {"up/stays", "up/other", "d/1.jpg"}
    assert {path.name for path in root.iterdir()} == {"stays", ".pglapse-root"}
    assert conn.execute(
        "select storage, outcome, count(*), sum(bytes) filter (where path = 'same')"
        "  from lapse.file_cleanup_log group by 1, 2 order by 1, 2"
    ).fetchall() == [
        ("disk", "deleted", 2, None),
        ("objects", "changed", 1, None),
        ("objects", "deleted", 61, 3),
    ]


def test_a_throttled_bucket_rests_burns_no_attempt_and_holds_up_no_folder(conn, dsn, tmp_path):
    root = tmp_path / "files"
    root.mkdir()
    (root / "a").write_text("x")
    with serving() as server:
        objects = server.fresh()
        names = objects.put(*(f"{number}" for number in range(30)))
        objects.denied["7"] = "SlowDown"
        config = tmp_path / "pglapse.toml"
        config.write_text(
            f'[storage.disk]\nkind = "local"\nroot = "{root}"\n'
            f'[storage.objects]\nkind = "s3"\nbucket = "{NAME}"\nendpoint_url = "{objects.url}"\n'
        )
        queue(conn, "objects", *names)

        with worker(dsn, config) as running:
            running.says("storage objects is away, its files wait: bucket bucket at")
            running.says("asks for fewer requests")
            queue(conn, "disk", "a")
            until(
                lambda: (
                    conn.execute("select path, attempts from lapse.file_cleanup_queue").fetchall()
                    == [("7", 0)]
                )
            )
            assert not (root / "a").exists()
            objects.denied.clear()
            until(lambda: not conn.execute("select 1 from lapse.file_cleanup_queue").fetchall())
            running.says("storage objects works again")

    assert objects.keys == set()
    assert conn.execute(
        "select outcome, attempts, count(*) from lapse.file_cleanup_log"
        " where storage = 'objects' group by 1, 2"
    ).fetchall() == [("deleted", 1, 30)]


def queue(
    conn: psycopg.Connection, storage: str, *paths: str, expected: dict[str, Any] | None = None
) -> None:
    conn.execute(
        "select lapse.enqueue_file(%s, path, p_expected => %s) from unnest(%s::text[]) as path",
        [storage, Jsonb(expected) if expected else None, list(paths)],
    )
