"""The few calls of boto3 that deleting needs, each with one clear way of failing.

`Refusal` when the server said no to the request or a key, `Away` when the storage as a whole can't be worked
with. boto3's own retries are off: the queue has better ones, which wait for minutes without holding a
thread, slow the storage down and burn no attempt. Only a connection that the other side had closed, as
happens to idle ones, is replaced and asked once more, at once.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError

from pglapse import __version__
from pglapse.errors import SettingError
from pglapse.storage import Away, Expected
from pglapse.storage.s3.calls import Gone, Target, Version, Versioning
from pglapse.storage.s3.settings import S3Settings
from pglapse.storage.s3.troubles import CREDENTIALS, DENIED, NOT_HERE, Refusal, rest
from pglapse.text import printable

CONNECT = 5  # seconds
READ = 30  # seconds without a byte
PAGE = 100  # versions listed at a time; a key has few, and its neighbours are listed in vain
AWS = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws")
XML = re.compile(rb"\s*(<\?xml[^>]*>)?\s*<(?!!doctype html|html)", re.IGNORECASE)
CUT: tuple[tuple[type[Exception], str], ...] = (
    (boto.ConnectTimeoutError, f"no connection within {CONNECT} s"),
    (boto.ReadTimeoutError, f"no answer within {READ} s"),
    (
        boto.SSLError,
        "its TLS certificate is not accepted ({}); where an authority of your own signed it, AWS_CA_BUNDLE "
        "names the file with that authority",
    ),
    (boto.ProxyConnectionError, "the proxy can't be reached ({})"),
    (boto.EndpointConnectionError, "the server can't be reached ({})"),
    (boto.HTTPClientError, "the connection was cut ({})"),
)
NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.RefreshWithMFAUnsupportedError,
    boto.SSOError,
    boto.TokenRetrievalError,
    boto.ConfigNotFound,
    boto.ProfileNotFound,
)


class Client:
    """One bucket, through boto3. Safe to use from several threads."""

    def __init__(self, settings: S3Settings, threads: int) -> None:
        self._settings = settings
        self._threads = threads
        self._lock = Lock()
        self._boto: Any = None
        try:
            found = self._connected()
        except (boto.BotoCoreError, ValueError) as error:
            raise SettingError(f"storage.{printable(settings.name)}: {printable(str(error))}") from error
        self.endpoint = found.meta.endpoint_url
        """The URL that requests go to."""
        self.is_aws = _is_aws(self.endpoint)

    @property
    def where(self) -> str:
        """The bucket, for people."""
        return f"bucket {self._settings.bucket} at {self.endpoint}"

    def versioning(self) -> Versioning:
        """Whether the bucket keeps versions. A server that does not know the question keeps none."""
        try:
            answer = self._ask("get_bucket_versioning")
        except Refusal as refusal:
            if refusal.code in NOT_HERE:
                return Versioning()
            raise
        return Versioning(answer.get("Status") or None, answer.get("MFADelete") == "Enabled")

    def head(self, key: str) -> Expected:
        """What an object is at present."""
        answer = self._ask("head_object", Key=key)
        return _found(answer, answer.get("ContentLength"))

    def delete(self, target: Target) -> Gone:
        """Delete one object or version."""
        more = {"VersionId": target.version} if target.version is not None else {}
        if target.etag is not None:
            more["IfMatch"] = f'"{target.etag}"'
        answer = self._ask("delete_object", Key=target.key, **more)
        return Gone(_is_marker(answer, target))

    def delete_many(self, targets: Sequence[Target]) -> dict[Target, Gone | Refusal]:
        """Delete objects or versions with one request; what the server does not mention is left out."""
        answer = self._ask("delete_objects", Delete={"Objects": [_identifier(one) for one in targets]})
        results: dict[tuple[str, str | None], Gone | Refusal] = {}
        versions = any(target.version is not None for target in targets)
        for done in answer.get("Deleted", []):
            named = done.get("Key"), done.get("VersionId") or "null" if versions else None
            results[named] = Gone(bool(done.get("DeleteMarker")))
        for failed in answer.get("Errors", []):
            refusal = Refusal(failed.get("Code") or "no code", failed.get("Message") or "")
            if not failed.get("Key") and refusal.whole:
                raise self._away(refusal.whole)
            results[failed.get("Key"), failed.get("VersionId") or "null" if versions else None] = refusal
        return {target: found for target in targets if (found := results.get((target.key, target.version)))}

    def versions(self, key: str) -> list[Version]:
        """All versions of exactly this key: the latest first, then content, newest first, then markers.

        The server lists by prefix, in order of keys, so the key itself comes first and ends where another
        begins.
        """
        listed: list[Version] = []
        marker: dict[str, str] = {}
        while True:
            page = self._ask("list_object_versions", Prefix=key, MaxKeys=PAGE, **marker)
            others = False
            for kind in ("Versions", "DeleteMarkers"):
                for entry in page.get(kind, []):
                    if entry.get("Key") != key:
                        others = True
                        continue
                    listed.append(
                        Version(
                            id=entry.get("VersionId") or "null",
                            latest=bool(entry.get("IsLatest")),
                            marker=kind == "DeleteMarkers",
                            found=_found(entry, entry.get("Size")),
                        )
                    )
            if others or not page.get("IsTruncated") or page.get("NextKeyMarker", key) != key:
                break
            following = {"KeyMarker": key, "VersionIdMarker": page.get("NextVersionIdMarker") or ""}
            if following == marker or not following["VersionIdMarker"]:
                raise self._away("its list of versions does not say how it goes on")
            marker = following
        return sorted(listed, key=lambda version: not version.latest)

    def away(self, refusal: Refusal) -> Away | None:
        """The storage's trouble, when a refusal is about more than its key."""
        return self._away(refusal.whole, refusal.retry_in) if refusal.whole else None

    def refused(self, refusal: Refusal, right: str = "") -> Away:
        """The storage's trouble, when no request of this kind will do; ``right``: the one that it needs."""
        if refusal.code in DENIED:
            needed = f"; it takes {right}" if right else ""
            return self._away(f"the credentials don't suffice{needed} ({refusal})")
        return self._away(f"the server refuses the request ({refusal})")

    def _ask(self, call: str, **arguments: Any) -> Any:
        for again in (True, False):
            try:
                with self._lock:
                    client = self._connected()
                return getattr(client, call)(Bucket=self._settings.bucket, **arguments)
            except boto.ClientError as error:
                refusal = _refusal(error)
                if refusal.code in CREDENTIALS:
                    self._forget()
                if refusal.whole:
                    raise self._away(refusal.whole, refusal.retry_in) from error
                raise refusal from error
            except boto.ParamValidationError as error:  # boto3 itself can't stand one of the keys
                raise Refusal("ParamValidation", str(error), status=400) from error
            except boto.ConnectionClosedError as error:
                if not again:
                    raise self._away(_words(error)) from error
            except NO_CREDENTIALS as error:
                self._forget()
                raise self._away(f"no credentials: {printable(str(error))}") from error
            except (boto.BotoCoreError, ResponseParserError) as error:
                raise self._away(_words(error)) from error
        raise AssertionError("unreachable")

    def _connected(self) -> Any:
        """A client, made anew after trouble with credentials: files and roles may have others by now."""
        if self._boto is None:
            one = self._settings
            session = boto3.Session(profile_name=one.profile)
            client = _client(session, one, self._threads)
            events = client.meta.events
            if not _is_aws(client.meta.endpoint_url):
                events.register("before-sign.s3.DeleteObjects", _with_md5)
            for call in ("DeleteObjects", "GetBucketVersioning", "ListObjectVersions"):
                events.register(f"response-received.s3.{call}", self._is_s3s)
            self._boto = client
        return self._boto

    def _away(self, reason: str, retry_in: float | None = None) -> Away:
        return Away(f"{self.where}: {reason}", retry_in)

    def _forget(self) -> None:
        """Have the next call look for credentials again."""
        with self._lock:
            self._boto = None

    def _is_s3s(self, response_dict: Any, **_: Any) -> None:
        """Raise `Away` when a 200 does not come from S3: a console or a proxy answers 200 to anything."""
        if response_dict is None or response_dict["status_code"] != 200:
            return
        body = response_dict["body"]
        if not XML.match(body):
            raise self._away(
                "the answer is not S3's"
                + (": does endpoint_url lead to another server?" if body else ", but empty")
            )


def _client(session: Any, settings: S3Settings, threads: int) -> Any:
    return session.client(
        "s3",
        region_name=settings.region,
        endpoint_url=settings.endpoint_url,
        config=Config(
            connect_timeout=CONNECT,
            read_timeout=READ,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=threads + 1,
            tcp_keepalive=True,
            s3={"addressing_style": settings.addressing},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            user_agent_extra=f"pglapse/{__version__}",
        ),
    )


def _with_md5(request: Any, **_: Any) -> None:
    """Send Content-MD5 in place of the checksum that boto3 sends since 1.36.

    Many servers that speak S3 demand it for DeleteObjects, and it is what every client sent before. AWS is
    left with boto3's own.
    """
    for name in [name for name in request.headers if name.lower().startswith("x-amz-checksum-")]:
        del request.headers[name]
    del request.headers["x-amz-sdk-checksum-algorithm"]
    digest = hashlib.md5(request.body, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode("ascii")


def _refusal(error: Any) -> Refusal:
    answer = error.response
    said = answer.get("Error", {})
    meta = answer.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode") or 0)
    headers = meta.get("HTTPHeaders", {})
    return Refusal(
        code=said.get("Code") or str(status),
        said=said.get("Message") or "",
        status=status,
        region=headers.get("x-amz-bucket-region") or said.get("Region"),
        retry_in=rest(headers),
    )


def _identifier(target: Target) -> dict[str, str]:
    named = {"Key": target.key}
    if target.version is not None:
        named["VersionId"] = target.version
    if target.etag is not None:
        named["ETag"] = target.etag
    return named


def _is_marker(answer: Any, target: Target) -> bool:
    """Whether a delete made a marker. Deleting a version that is one says the same, and makes none."""
    return bool(answer.get("DeleteMarker")) and target.version is None


def _found(answer: Any, size: int | None) -> Expected:
    modified = answer.get("LastModified")
    etag = answer.get("ETag")
    return Expected(
        size=size,
        mtime_ns=None if modified is None else int(modified.timestamp()) * 1_000_000_000,
        etag=None if etag is None else etag.strip('"'),
    )


def _is_aws(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith(AWS)


def _words(error: Exception) -> str:
    """What became of a connection, for people."""
    for kind, words in CUT:
        if isinstance(error, kind):
            return words.format(_root(error))
    return printable(str(error))


def _root(error: BaseException) -> str:
    """The operating system's word for it, from below all wrappers."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError) and current.strerror:
            return printable(current.strerror)
        inner = getattr(current, "kwargs", {}).get("error") or getattr(current, "reason", None)
        current = inner if isinstance(inner, BaseException) else current.__cause__ or current.__context__
    return printable(str(getattr(error, "kwargs", {}).get("error") or error))
