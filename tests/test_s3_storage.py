"""What a storage of kind s3 makes of the answers of a server, good and bad."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pglapse.errors import SettingError
from pglapse.storage import Away, Batch, Expected, File, Outcome
from pglapse.storage.s3 import S3Storage, open_s3
from pglapse.storage.s3.client import Client
from pglapse.storage.s3.settings import S3Settings
from tests.support.install import ROOT
from tests.support.s3 import NAME, Asked, Bucket, Reply, Server, error, nobodys_credentials, serving
from tests.support.s3_keys import PREFIX, neighbours, paths
from tests.support.storage import delete

THREADS = 4


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nobodys_credentials(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as one:
        yield one


@pytest.fixture
def bucket(server: Server) -> Bucket:
    return server.fresh()


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as one:
        yield one


@cache
def client(settings: S3Settings) -> Client:
    """Making one takes boto3 a tenth of a second."""
    return Client(settings, THREADS)


@pytest.fixture
def storage(bucket: Bucket, pool: ThreadPoolExecutor) -> S3Storage:
    return made(bucket, pool)


def made(bucket: Bucket, pool: ThreadPoolExecutor, **more: Any) -> S3Storage:
    return S3Storage("s", client(bucket.settings()), pool, **more)


def one(storage: S3Storage, file: str | File) -> Outcome:
    [outcome] = delete(storage, [file])
    return outcome


def verdicts(outcomes: list[Outcome]) -> list[str]:
    return [outcome.verdict for outcome in outcomes]


def away(storage: S3Storage, *files: str) -> Away:
    """What a storage says that is away; none of the files may be ended."""
    batch = Batch([File(file) for file in files or ("a",)])
    with pytest.raises(Away) as caught:
        storage.delete(batch)
    assert batch.collect() == []
    assert "\n" not in caught.value.reason
    return caught.value


def test_a_thousand_files_are_one_request_and_each_has_its_own_outcome(bucket, storage):
    names = bucket.put(*(f"d/{number}" for number in range(1000)))
    bucket.put("d/1000", "D/1", "d/1 ", "d")
    bucket.denied["d/500"] = "AccessDenied"

    outcomes = delete(storage, names)

    assert bucket.count("many") == 1
    assert bucket.count("delete") == 0
    assert outcomes[500] == Outcome("failed", error="AccessDenied: no")
    assert verdicts(outcomes).count("deleted") == 999
    assert bucket.keys == {"d/500", "d/1000", "D/1", "d/1 ", "d"}


def test_no_request_has_more_keys_than_s3_takes(bucket, storage):
    names = bucket.put(*(f"{number}" for number in range(1001)))

    outcomes = delete(storage, names)

    assert [len(asked.keys) for asked in bucket.asked if asked.kind == "many"] == [1000, 1]
    assert set(verdicts(outcomes)) == {"deleted"}
    assert bucket.keys == set()


def test_a_server_that_takes_fewer_keys_is_sent_fewer(bucket, pool):
    bucket.most = 3
    names = bucket.put(*"abcdefgh")

    outcomes = delete(made(bucket, pool, batch_size=3), names)

    assert [len(asked.keys) for asked in bucket.asked if asked.kind == "many"] == [3, 3, 2]
    assert set(verdicts(outcomes)) == {"deleted"}


def test_without_the_setting_such_a_server_is_asked_with_fewer_and_that_is_said_once(bucket, storage, caplog):
    bucket.most = 30
    names = bucket.put(*(f"{number}" for number in range(100)))

    outcomes = delete(storage, names) + delete(storage, bucket.put(*(f"x{n}" for n in range(50))))

    assert set(verdicts(outcomes)) == {"deleted"}
    assert bucket.keys == set()
    assert caplog.text.count("set batch_size") == 1


def test_one_key_that_the_server_can_t_stand_in_a_list_fails_alone(bucket, storage):
    names = bucket.put(*(f"{number}" for number in range(100)))

    def picky(asked: Asked) -> Reply | None:
        return error(400, "InvalidArgument", "what is 77?") if "77" in asked.keys else None

    bucket.fail("many", picky, times=50)
    bucket.denied["77"] = "InvalidArgument"

    outcomes = delete(storage, names)

    assert [position for position, outcome in enumerate(outcomes) if outcome.verdict != "deleted"] == [77]
    assert outcomes[77].verdict == "failed"
    assert bucket.keys == {"77"}


@pytest.mark.parametrize("prefix", ["", "up/"])
def test_keys_with_any_characters_go_and_their_neighbours_stay(bucket, pool, prefix):
    odd = [
        "a\nb", "a\rb", "a\tb", "\x01", "\x7f", "a\ufffeb", "&<>\"'", "100%", "%41", "a+b", "a b", "end ",
        " begin", "foo[1]", "foo*", "?x=1", "#x", "🗑️", "e\u0301", "a//b", "/a", "a/", "~", "\\",
        "k" * (1024 - len(prefix)),
    ]  # fmt: skip
    near = [
        "ab", "a", "b", "A", "begin", "end", "foo1", "%2541", "\u00e9", "a/b", "foo", "%25", "100", "100%25",
        "x", "a%20b", "a%0Ab", "%01",
    ]  # fmt: skip
    bucket.put(*(prefix + key for key in odd + near), "elsewhere/a b")

    outcomes = delete(made(bucket, pool, prefix=prefix), odd)

    assert dict(zip(odd, verdicts(outcomes), strict=True)) == dict.fromkeys(odd, "deleted")
    assert bucket.keys == {*(prefix + key for key in near), "elsewhere/a b"}
    singly = {asked.key for asked in bucket.asked if asked.kind == "delete"}
    assert {prefix + "\x01", prefix + "a\nb", prefix + "end "} <= singly
    assert prefix + "a+b" not in singly


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(wanted=st.sets(paths, min_size=1, max_size=6), in_bulk=st.booleans())
def test_exactly_the_named_keys_go_whatever_they_are(server, pool, wanted, in_bulk):
    bucket = server.fresh()
    near = {PREFIX + path for path in neighbours(*wanted)} | {path for path in wanted if PREFIX not in path}
    bucket.put(*(PREFIX + path for path in wanted), *near)

    bucket.fail("many", *[error(501, "NotImplemented")] * (not in_bulk))

    outcomes = delete(made(bucket, pool, prefix=PREFIX), sorted(wanted))

    assert outcomes == [Outcome("deleted")] * len(wanted)
    assert bucket.keys == near


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "the path is empty"),
        ("a\x00b", "NUL"),
        ("\ud800", "not valid Unicode"),
        ("k" * 1022, "the key has 1,025 bytes"),
        ("é" * 511, "the key has 1,025 bytes"),
        ("..", "'.' or '..'"),
        ("../x", "'.' or '..'"),
        ("a/../../x", "'.' or '..'"),
        ("./a", "'.' or '..'"),
    ],
)
def test_a_path_that_is_no_key_is_refused_and_never_sent(bucket, pool, path, words):
    outcome = one(made(bucket, pool, prefix="up/"), path)

    assert outcome.verdict == "refused"
    assert words in (outcome.error or "")
    assert {asked.kind for asked in bucket.asked} == {"versioning"}


def test_a_key_that_the_answer_does_not_mention_is_not_taken_for_deleted(bucket, storage):
    bucket.put("a", "b")
    bucket.forgetful.add("a")

    outcomes = delete(storage, ["a", "b"])

    assert outcomes[0] == Outcome("failed", error="the server's answer does not mention this key")
    assert outcomes[1].verdict == "deleted"


def test_a_key_that_never_was_is_deleted_as_s3_has_it_or_missing_where_the_server_tells(bucket, storage):
    bucket.denied["gone"] = "NoSuchKey"
    bucket.denied["gone\x01"] = "NoSuchKey"

    assert verdicts(delete(storage, ["never", "gone", "gone\x01"])) == ["deleted", "missing", "missing"]


def test_a_404_without_s3_s_own_word_for_it_is_no_missing_file(bucket, storage):
    bucket.fail("delete", Reply(404, "<html>no such page</html>"))

    outcome = one(storage, "a\x01")

    assert outcome.verdict == "failed"


BUSY = ["SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "TooManyRequests"]


@pytest.mark.parametrize("code", BUSY)
def test_throttled_keys_are_given_back_and_the_others_done(bucket, storage, code):
    names = bucket.put("a", "b", "c")
    bucket.denied["b"] = code
    batch = Batch([File(name) for name in names])

    with pytest.raises(Away, match=code) as caught:
        storage.delete(batch)

    assert dict(batch.collect()) == {0: Outcome("deleted"), 2: Outcome("deleted")}
    assert batch.begun == {1}
    assert caught.value.retry_in is None
    assert bucket.keys == {"b"}


@pytest.mark.parametrize("key", ["a", "a\x01"])
@pytest.mark.parametrize("status", [200, 503, 500])
def test_a_throttled_request_burns_no_attempt_however_it_is_said(bucket, storage, status, key):
    bucket.put(key)
    for kind in ("many", "delete"):
        bucket.fail(kind, error(500 if kind == "delete" and status == 200 else status, "SlowDown", "Please."))

    said = away(storage, key)

    assert "fewer requests" in said.reason
    assert bucket.count("many") + bucket.count("delete") == 1, "boto3 must not try again by itself"
    assert one(storage, key).verdict == "deleted"


@pytest.mark.parametrize(("asked", "expected"), [("7", 7), ("86400", 300), ("-1", None), ("soon", None)])
def test_a_server_that_says_when_to_come_back_is_heeded(bucket, storage, asked, expected):
    bucket.fail("many", error(503, "SlowDown", Retry_After=asked))

    assert away(storage).retry_in == expected


def test_after_throttling_no_further_request_is_sent(bucket, pool):
    names = bucket.put(*"abcdef")
    bucket.fail("many", lambda asked: None, error(503, "SlowDown"))
    batch = Batch([File(name) for name in names])

    with pytest.raises(Away):
        made(bucket, pool, batch_size=2).delete(batch)

    assert sorted(position for position, _ in batch.collect()) == [0, 1]
    assert bucket.count("many") == 2
    assert batch.begun == {2, 3}, "what was not sent is not begun"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(404, "NoSuchBucket", "gone"), "there is no such bucket"),
        (error(403, "InvalidAccessKeyId", "who?"), "does not know the access key"),
        (error(403, "SignatureDoesNotMatch", "no"), "the secret key does not fit"),
        (error(400, "ExpiredToken", "old"), "the credentials have expired"),
        (error(403, "RequestTimeTooSkewed", "late"), "clock is wrong"),
        (error(403, "AccessDenied", "no"), "the credentials don't suffice (AccessDenied: no)"),
        (error(409, "Strange", "odd\nthing"), r"the server refuses the request (Strange: odd\nthing)"),
        (Reply(200, "<html>a console</html>"), "the answer is not S3's: does endpoint_url lead to another"),
        (Reply(200, ""), "the answer is not S3's, but empty"),
        (Reply(502, "<html>bad gateway"), "trouble of its own (502: Bad Gateway)"),
        (Reply(200, "<DeleteResult><Deleted><Key>a</Ke"), "trouble of its own"),
    ],
)
@pytest.mark.parametrize("kind", ["many", "versioning"])
def test_trouble_of_the_whole_storage_is_said_in_words_and_burns_no_attempt(
    bucket, storage, reply, words, kind
):
    bucket.put("a")
    bucket.fail(kind, reply)
    if kind == "versioning" and "suffice" in words:
        words = "no permission to see whether it keeps versions (AccessDenied: no)"

    said = away(storage)

    assert words in said.reason
    assert f"bucket {NAME} at {bucket.url}" in said.reason
    assert one(storage, "a").verdict == "deleted", "and it goes on once the trouble is over"


def test_a_connection_that_was_closed_is_replaced_once(bucket, storage):
    bucket.put("a")
    bucket.fail("many", Reply(200, "<DeleteResult>", cut=5))

    assert one(storage, "a").verdict == "deleted"
    assert bucket.count("many") == 2


def test_an_answer_that_is_cut_off_again_and_again_is_no_deletion(bucket, storage):
    bucket.fail("many", Reply(200, "<DeleteResult><Deleted><Key>a</Key></Deleted>", cut=40), times=2)

    assert "the connection was cut" in away(storage).reason
    assert bucket.count("many") == 2


def test_a_server_that_is_not_there_is_named(bucket, pool):
    with socket.socket() as shut:
        shut.bind(("127.0.0.1", 0))
        settings = bucket.settings(endpoint_url=f"http://127.0.0.1:{shut.getsockname()[1]}")

        said = away(open_s3(settings, pool))

    assert f"{settings.endpoint_url}: the server can't be reached (Connection refused)" in said.reason


def test_a_server_that_does_not_speak_tls_is_named(bucket, pool):
    storage = open_s3(bucket.settings(endpoint_url=bucket.url.replace("http:", "https:")), pool)

    assert "TLS" in away(storage).reason


def test_a_server_that_never_answers_is_waited_for_once(bucket, pool, monkeypatch):
    monkeypatch.setattr("pglapse.storage.s3.client.READ", 0.3)
    told = Event()
    bucket.fail("versioning", lambda asked: told.wait(30) and None)

    said = away(open_s3(bucket.settings(), pool))

    assert "no answer within" in said.reason
    assert bucket.count("versioning") == 1
    assert not told.is_set()
    told.set()


def test_credentials_that_come_later_are_found_without_a_restart(bucket, pool, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    bucket.put("a")
    storage = open_s3(bucket.settings(), pool)

    assert "no credentials: Unable to locate credentials" in away(storage).reason

    file.write_text("[default]\naws_access_key_id = old\naws_secret_access_key = y\n")
    bucket.fail("versioning", error(400, "ExpiredToken", "old"))
    assert "have expired" in away(storage).reason

    file.write_text("[default]\naws_access_key_id = new\naws_secret_access_key = y\n")
    assert one(storage, "a").verdict == "deleted"
    assert "Credential=new/" in bucket.asked[-1].headers["Authorization"]


@pytest.mark.parametrize("code", ["NotImplemented", "MethodNotAllowed", "MissingContentMD5"])
def test_a_server_without_bulk_deletion_is_served_one_by_one_and_that_is_said_once(
    bucket, storage, code, caplog
):
    names = bucket.put(*(f"{number}" for number in range(20)))
    bucket.fail("many", error(501, code, "no"), times=3)
    bucket.denied["7"] = "AccessDenied"

    outcomes = delete(storage, names) + delete(storage, bucket.put("more"))

    assert bucket.count("many") == 1
    assert bucket.count("delete") == 21
    assert bucket.keys == {"7"}
    assert [position for position, outcome in enumerate(outcomes) if outcome.verdict != "deleted"] == [7]
    assert caplog.text.count("one key a request only") == 1


def test_lists_carry_a_content_md5_where_the_server_is_not_aws(bucket, storage):
    bucket.put("a")

    assert one(storage, "a").verdict == "deleted"

    headers = {name.lower() for name in bucket.asked[-1].headers}
    assert "content-md5" in headers
    assert not [name for name in headers if "checksum" in name]
    assert "content-md5" in bucket.asked[-1].headers["Authorization"]


def test_the_stub_refuses_a_list_without_a_checksum(bucket, storage, monkeypatch):
    bucket.put("a")
    monkeypatch.setattr("pglapse.storage.s3.client._with_md5", None)
    asked = Asked("many", "/", "", {}, {}, b"<Delete><Object><Key>a</Key></Object></Delete>")

    assert bucket.answer(asked).status == 400


def test_a_bucket_in_another_region_is_followed(bucket, pool):
    bucket.put("a")

    def elsewhere(asked: Asked) -> Reply | None:
        if "/eu-west-1/s3/" in asked.headers["Authorization"]:
            return None
        return error(301, "PermanentRedirect", "use the other", x_amz_bucket_region="eu-west-1")

    bucket.fail("versioning", elsewhere, times=2)
    storage = open_s3(bucket.settings(region="us-east-1"), pool)

    assert one(storage, "a").verdict == "deleted"


def test_a_redirect_that_leads_nowhere_names_the_region(bucket, storage):
    moved = error(301, "PermanentRedirect", "no", x_amz_bucket_region="eu-west-1")
    bucket.fail("many", moved, moved)

    said = away(storage).reason

    assert 'the bucket is in another region; set region = "eu-west-1"' in said


def test_told_to_stop_it_ends_between_requests(bucket, pool):
    names = bucket.put(*"abcdef")

    outcomes = delete(made(bucket, pool, batch_size=2), names, go_on=lambda: bucket.count("many") < 1)

    assert verdicts(outcomes) == ["deleted", "deleted", "released", "released", "released", "released"]
    assert bucket.count("many") == 1


def test_told_to_stop_while_a_refused_request_is_taken_apart_it_ends_between_requests(bucket, storage):
    bucket.most = 20
    names = bucket.put(*(f"{number:02}" for number in range(64)))

    outcomes = delete(storage, names, go_on=lambda: len(bucket.keys) == 64)

    assert set(verdicts(outcomes)) == {"deleted", "released"}
    assert bucket.keys == {
        name for name, outcome in zip(names, outcomes, strict=True) if outcome.verdict == "released"
    }
    assert len(bucket.keys) == 48


def test_after_throttling_no_further_single_request_is_sent(bucket):
    names = bucket.put(*(f"{number}\x01" for number in range(9)))
    bucket.fail("delete", error(503, "SlowDown"))

    with ThreadPoolExecutor(1) as alone:
        away(made(bucket, alone), *names)

    assert bucket.count("delete") == 1


def test_with_the_lease_over_nothing_is_sent(bucket, storage):
    bucket.put("a", "b\x01", "c")

    outcomes = delete(storage, ["a", "b\x01", File("c", (Expected(size=1),))], go_on=lambda: False)

    assert verdicts(outcomes) == ["released"] * 3
    assert {asked.kind for asked in bucket.asked} == {"versioning"}


# --- a bucket that keeps versions -----------------------------------------------------------------------


@pytest.mark.parametrize("status", ["Enabled", "Suspended"])
def test_a_bucket_that_keeps_versions_is_refused_until_somebody_says_how(bucket, storage, status):
    bucket.put("a")
    bucket.versioning = status

    said = away(storage).reason

    assert f"versioning is {status.lower()}" in said
    assert "only add a marker" in said
    assert 'versions = "purge"' in said
    assert 'versions = "marker"' in said
    assert bucket.keys == {"a"}


def test_the_bucket_is_looked_at_once_and_again_after_trouble(bucket, storage):
    for _ in range(3):
        storage.check()
        delete(storage, bucket.put("a"))
    assert bucket.count("versioning") == 1

    bucket.fail("many", error(503, "SlowDown"))
    away(storage)
    storage.check()
    delete(storage, bucket.put("a"))

    assert bucket.count("versioning") == 2


@pytest.mark.parametrize("key", ["a", "a\x01"])
def test_a_bucket_that_keeps_versions_from_now_on_is_noticed_at_its_first_marker(bucket, pool, key):
    storage = made(bucket, pool, batch_size=1)
    storage.check()
    bucket.versioning = "Enabled"
    bucket.put(key, "b", "c")
    batch = Batch([File(key), File("b"), File("c")])

    with pytest.raises(Away, match="keeps versions since a short while ago"):
        storage.delete(batch)

    assert "failed" in {outcome.verdict for _, outcome in batch.collect()}
    assert "keeps versions" in away(storage).reason
    assert len(bucket.keys) >= 1


def test_a_marker_is_added_where_that_is_meant_and_said_once(bucket, pool, caplog):
    bucket.versioning = "Enabled"
    bucket.put("a", "b\x01")
    storage = made(bucket, pool, versions="marker")

    outcomes = delete(storage, ["a", "b\x01", File("c", (Expected(size=1),))])
    delete(storage, bucket.put("a"))

    assert outcomes == [Outcome("deleted"), Outcome("deleted"), Outcome("missing")]
    assert bucket.keys == set()
    assert len(bucket.objects["b\x01"]) == 2
    assert caplog.text.count("only get a delete marker") == 1


def test_without_the_permission_to_look_only_markers_are_possible(bucket, pool):
    bucket.put("a")
    bucket.fail("versioning", error(403, "AccessDenied", "no"), times=3)

    assert "s3:GetBucketVersioning" in away(made(bucket, pool)).reason
    assert "s3:GetBucketVersioning" in away(made(bucket, pool, versions="purge")).reason
    assert one(made(bucket, pool, versions="marker"), "a").verdict == "deleted"


def test_a_server_that_knows_no_versions_keeps_none(bucket, storage):
    bucket.put("a")
    bucket.fail("versioning", error(501, "NotImplemented", "no"))

    assert one(storage, "a").verdict == "deleted"


def test_purging_takes_all_versions_of_exactly_the_key_the_latest_last(bucket, pool):
    bucket.versioning = "Enabled"
    bucket.put("a", "a", "ab", "a/b", "A", "b\x01", "b\x01", body=b"12345")
    storage = made(bucket, pool, versions="purge")

    outcomes = delete(storage, ["a", "b\x01", "none"])

    assert outcomes == [Outcome("deleted", bytes=10), Outcome("deleted", bytes=10), Outcome("missing")]
    assert {key for key, versions in bucket.objects.items() if versions} == {"ab", "a/b", "A"}
    sent = [entry["VersionId"] for asked in bucket.asked if asked.kind == "many" for entry in asked.named]
    assert sent == ["v1", "v2"]
    assert bucket.count("many") == 2


def test_a_version_that_can_t_go_keeps_the_latest_and_fails_the_file(bucket, pool):
    bucket.versioning = "Enabled"
    bucket.put("a", "a", "a", "b")
    bucket.denied["v1"] = "AccessDenied"

    outcomes = delete(made(bucket, pool, versions="purge"), ["a", "b"])

    assert outcomes[0] == Outcome("failed", error="version v1: AccessDenied: no")
    assert outcomes[1].verdict == "deleted"
    assert [version.id for version in bucket.objects["a"]] == ["v3", "v1"]


def test_a_delete_marker_goes_after_what_it_hides(bucket, pool):
    bucket.versioning = "Enabled"
    bucket.put("a", body=b"123")
    storage = made(bucket, pool, versions="marker")
    one(storage, "a")
    seen: list[bool] = []
    bucket.fail("many", lambda asked: seen.append("a" in bucket.keys), times=2)

    outcome = one(made(bucket, pool, versions="purge"), "a")

    assert outcome == Outcome("deleted", bytes=3)
    assert bucket.objects["a"] == []
    assert seen == [False, False]
    assert one(made(bucket, pool, versions="purge"), "a") == Outcome("missing")


def test_purging_goes_on_where_throttling_stopped_it(bucket, pool):
    bucket.versioning = "Enabled"
    bucket.put("a", "a", "b", body=b"12")
    bucket.fail("many", lambda asked: None, error(503, "SlowDown"))
    storage = made(bucket, pool, versions="purge")

    away(storage, "a", "b")
    outcomes = delete(storage, ["a", "b"])

    assert verdicts(outcomes) == ["deleted", "deleted"]
    assert not any(bucket.objects.values())


def test_told_to_stop_purging_ends_between_requests_and_keeps_the_latest(bucket, pool):
    bucket.versioning = "Enabled"
    bucket.put("a", "a", "a")
    storage = made(bucket, pool, versions="purge", batch_size=1)

    [outcome] = delete(storage, ["a"], go_on=lambda: bucket.count("many") < 1)

    assert outcome == Outcome("released")
    assert len(bucket.objects["a"]) == 2
    assert bucket.objects["a"][0].id == "v3"


def test_a_lease_that_is_renewed_halfway_does_not_lay_open_an_older_version(bucket, pool):
    bucket.versioning = "Enabled"
    bucket.put("a", "a")
    stops = iter([True])

    [outcome] = delete(
        made(bucket, pool, versions="purge"),
        ["a"],
        go_on=lambda: not (bucket.count("versions") and next(stops, False)),
    )

    assert outcome == Outcome("released")
    assert len(bucket.objects["a"]) == 2


def test_purging_without_the_right_to_list_versions_says_which_right_it_takes(bucket, pool):
    bucket.versioning = "Enabled"
    bucket.put("a")
    bucket.fail("versions", error(403, "AccessDenied", "no"))

    assert "it takes s3:ListBucketVersions" in away(made(bucket, pool, versions="purge")).reason


def test_a_list_of_versions_that_does_not_say_how_it_goes_on_purges_nothing(bucket, pool):
    bucket.versioning = "Enabled"
    bucket.put("a")
    bucket.fail(
        "versions", Reply(body="<ListVersionsResult><IsTruncated>true</IsTruncated></ListVersionsResult>")
    )

    assert "does not say how it goes on" in away(made(bucket, pool, versions="purge")).reason
    assert bucket.keys == {"a"}


def test_a_bucket_with_mfa_delete_can_t_be_purged_and_says_so(bucket, pool):
    bucket.fail(
        "versioning",
        Reply(
            body="<VersioningConfiguration><Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>"
            "</VersioningConfiguration>"
        ),
    )

    assert "one-time code" in away(made(bucket, pool, versions="purge")).reason


# --- guarded deletion -----------------------------------------------------------------------------------


def guarded(path: str, *expected: Expected) -> File:
    return File(path, expected)


def etag(bucket: Bucket, key: str) -> str:
    return bucket.objects[key][0].etag


MOMENT = 1_700_000_000 * 10**9  # when every object of the stub was last modified


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ([Expected(size=3)], None),
        ([Expected(size=4)], "its size is 3 bytes, not 4"),
        ([Expected(mtime_ns=MOMENT + 999_999_999)], None),
        (
            [Expected(mtime_ns=MOMENT - 1)],
            "last modified at 2023-11-14 22:13:20 UTC, not 2023-11-14 22:13:19 UTC",
        ),
        ([Expected(etag="*")], "its ETag is 202cb962ac59075b964b07152d234b70, not *"),
        ([Expected(etag="no")], "its ETag is 202cb962ac59075b964b07152d234b70, not no"),
        ([Expected(etag='"202cb962ac59075b964b07152d234b70"')], None),
        ([Expected(size=3, mtime_ns=MOMENT, etag="202cb962ac59075b964b07152d234b70")], None),
        ([Expected(size=3, mtime_ns=MOMENT, etag="no")], "its ETag is"),
        ([Expected(size=4), Expected(size=3)], None),
        ([Expected(size=4), Expected(size=5)], "not 4 (nor is it any of the 1 others that were condemned)"),
        ([Expected(mtime_ns=2**63 - 1)], "not 2262-04-11"),
    ],
)
@pytest.mark.parametrize("as_aws", [False, True])
def test_only_the_object_that_was_condemned_goes(bucket, pool, monkeypatch, as_aws, expected, words):
    storage = made(bucket, pool)
    monkeypatch.setattr(client(bucket.settings()), "is_aws", as_aws)
    bucket.put("a", body=b"123")

    outcome = one(storage, guarded("a", *expected))

    if words is None:
        assert outcome in (Outcome("deleted", bytes=3), Outcome("deleted"))
        assert bucket.keys == set()
    else:
        assert outcome.verdict == "changed"
        assert words in (outcome.error or "")
        assert bucket.keys == {"a"}


def test_an_object_that_is_replaced_after_the_look_stays(bucket, storage):
    bucket.put("a", body=b"old")
    file = guarded("a", Expected(size=3))
    bucket.on_head = lambda key: bucket.put(key, body=b"newer")[0]

    outcome = one(storage, file)

    assert outcome == Outcome("changed", error="its size is 5 bytes, not 3")
    assert bucket.keys == {"a"}


def test_an_object_that_is_replaced_again_and_again_is_tried_later(bucket, storage):
    bucket.put("a", body=b"000")
    numbers = iter(range(1, 10))
    bucket.on_head = lambda key: bucket.put(key, body=b"00%d" % next(numbers))[0]

    assert one(storage, guarded("a", Expected(size=3))).verdict == "failed"
    assert bucket.keys == {"a"}


def test_on_aws_etags_travel_in_the_list_and_what_does_not_match_is_looked_at(bucket, pool, monkeypatch):
    storage = made(bucket, pool)
    monkeypatch.setattr(client(bucket.settings()), "is_aws", True)
    bucket.put("same", "other", "plain", body=b"123")
    right = etag(bucket, "same")

    outcomes = delete(
        storage,
        [guarded(key, Expected(etag=tag)) for key, tag in
         [("same", right), ("other", "0" * 32), ("gone", right)]] + [File("plain")],
    )  # fmt: skip

    assert verdicts(outcomes) == ["deleted", "changed", "missing", "deleted"]
    assert [asked.kind for asked in bucket.asked] == ["versioning", "many", "head"]
    assert bucket.keys == {"other"}


def test_a_server_that_ignores_etags_in_a_list_is_not_trusted_with_them(bucket, storage):
    bucket.ignores_conditions = True
    bucket.put("a", body=b"123")

    assert one(storage, guarded("a", Expected(etag="0" * 32))).verdict == "changed"
    assert bucket.keys == {"a"}


def test_a_server_without_conditional_delete_compares_before_and_that_is_said_once(bucket, storage, caplog):
    bucket.put("a", "b", "c", body=b"123")
    bucket.fail("delete", error(501, "NotImplemented", "A header you provided implies"), times=1)
    files = [guarded(key, Expected(size=3)) for key in "ab"] + [guarded("c", Expected(size=4))]

    outcomes = [one(storage, file) for file in files]

    assert verdicts(outcomes) == ["deleted", "deleted", "changed"]
    assert bucket.keys == {"c"}
    assert caplog.text.count("knows no conditional delete") == 1


def test_a_guarded_object_is_missing_only_if_the_bucket_is_there(bucket, storage, monkeypatch):
    storage.check()
    monkeypatch.setattr("pglapse.storage.s3.storage.FRESH", 0)
    assert one(storage, guarded("a", Expected(size=3))) == Outcome("missing")

    bucket.fail("versioning", error(404, "NoSuchBucket", "gone"))
    batch = Batch([guarded("a", Expected(size=3))])
    with pytest.raises(Away, match="there is no such bucket"):
        storage.delete(batch)
    assert batch.collect() == []


@pytest.mark.parametrize("status", [400, 403])
def test_an_object_that_can_t_be_looked_at_stays(bucket, storage, status):
    bucket.put("a")
    bucket.fail("head", Reply(status))

    outcome = one(storage, guarded("a", Expected(size=1)))

    assert outcome.verdict == "failed"
    assert "can't be compared" in (outcome.error or "")
    assert bucket.keys == {"a"}


def test_purging_heeds_the_guard_by_the_newest_content(bucket, pool):
    bucket.versioning = "Enabled"
    bucket.put("a", "b", body=b"123")
    bucket.put("a", body=b"12345")
    storage = made(bucket, pool, versions="purge")

    outcomes = delete(storage, [guarded(key, Expected(size=3)) for key in "ab"])

    assert outcomes == [
        Outcome("changed", error="its size is 5 bytes, not 3"),
        Outcome("deleted", bytes=3),
    ]
    assert len(bucket.objects["a"]) == 2


# --- making one -----------------------------------------------------------------------------------------


def test_without_boto3_all_else_works_and_kind_s3_says_what_to_install(tmp_path):
    config = tmp_path / "pglapse.toml"
    config.write_text('[storage.x]\nkind = "s3"\nbucket = "uploads"\n')
    program = (
        "import sys; sys.modules['boto3'] = None; sys.modules['botocore'] = None\n"
        "from pglapse.cli import main; main()"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT / "worker"),
                "DATABASE_URL": "postgresql://127.0.0.1:1/x",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    done = run("worker", "--config", str(config))

    assert run("--version").returncode == 0
    assert done.returncode == 2
    assert "storage.x: kind s3 needs boto3" in done.stderr
    assert "pip install 'pglapse[s3]'" in done.stderr


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"profile": "nobody"}, "nobody"),
        ({"region": "not a region"}, "region"),
    ],
)
def test_what_boto3_can_t_make_a_client_of_is_one_clear_line(bucket, pool, more, words):
    with pytest.raises(SettingError, match=words) as caught:
        open_s3(bucket.settings(**more), pool)

    assert str(caught.value).startswith("storage.s: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "environment", "url"),
    [
        ({"endpoint_url": None, "region": "eu-west-1"}, {}, "https://bucket.s3.eu-west-1.amazonaws.com/k"),
        ({"endpoint_url": None, "bucket": "a.b"}, {}, "https://s3.amazonaws.com/a.b/k"),
        ({"endpoint_url": "http://minio:9000"}, {}, "http://minio:9000/bucket/k"),
        ({"endpoint_url": "http://minio:9000", "addressing": "virtual"}, {}, "http://bucket.minio:9000/k"),
        ({"endpoint_url": None}, {"AWS_ENDPOINT_URL": "http://minio:9000"}, "http://minio:9000/bucket/k"),
    ],
)
def test_the_bucket_s_name_goes_where_the_server_looks_for_it(
    bucket, pool, monkeypatch, more, environment, url
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = Client(bucket.settings(**more), 1)
    sent: list[str] = []

    def caught(request: Any, **_: Any) -> None:
        sent.append(request.url)
        raise ConnectionAbortedError

    found._connected().meta.events.register("before-send.s3.*", caught)
    with pytest.raises(ConnectionAbortedError):
        found.head("k")

    assert sent == [url]
    assert found.is_aws is ("amazonaws" in url)
