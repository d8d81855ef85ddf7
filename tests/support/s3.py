"""A bucket that answers as S3 does where moto is lenient, and that fails as a test tells it to.

It keeps objects and their versions in memory. As S3 does, it refuses lists of more than 1,000 keys, lists
that are no XML 1.0, and lists without a checksum; it heeds If-Match, and says deleted of a key that never
was. `Bucket.fail` makes the next requests of a kind go wrong.
"""

import base64
import hashlib
import os
import re
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, quote_plus, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest

from pglapse.storage.s3.settings import S3Settings

NAME = "bucket"


@dataclass(frozen=True)
class Reply:
    """What the server says: a status, headers and a body; ``cut``: only so much of it, then a reset."""

    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    kind: str
    """many (a list of keys), delete, head, versioning or versions."""
    path: str
    key: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def named(self) -> list[dict[str, str]]:
        """The keys of a list, with version and ETag."""
        return [
            {child.tag.split("}")[-1]: child.text or "" for child in entry}
            for entry in ET.fromstring(self.body)  # noqa: S314 - a test's own
            if entry.tag.endswith("Object")
        ]

    @property
    def keys(self) -> list[str]:
        return [entry["Key"] for entry in self.named] if self.kind == "many" else [self.key]


@dataclass
class Version:
    id: str
    body: bytes | None
    """None: a delete marker."""

    @property
    def etag(self) -> str:
        return hashlib.md5(self.body or b"", usedforsecurity=False).hexdigest()


def error(status: int, code: str, message: str = "", region: str = "", **headers: str) -> Reply:
    """An answer as S3 words its refusals."""
    more = f"<Region>{region}</Region>" if region else ""
    return Reply(
        status,
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>{more}</Error>",
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


Fault = Reply | Callable[[Asked], Reply | None]
"""An answer in place of the right one, or what makes one of a request; None: answer as usual."""


class Bucket:
    """One bucket and its server."""

    def __init__(self) -> None:
        self.objects: dict[str, list[Version]] = {}
        self.versioning = ""
        self.asked: list[Asked] = []
        self.denied: dict[str, str] = {}
        """Keys, or versions, that answer with an error code."""
        self.forgetful: set[str] = set()
        """Keys that an answer does not mention."""
        self.ignores_conditions = False
        self.most = 1000
        self.on_head: Callable[[str], None] = lambda key: None
        """Called after an object was looked at, for what others do in that moment."""
        self.url = ""
        self._faults: dict[str, deque[Fault]] = {}
        self._serial = 0

    def put(self, *keys: str, body: bytes = b"x") -> list[str]:
        for key in keys:
            self._add(key, body)
        return list(keys)

    def _add(self, key: str, body: bytes | None) -> str:
        self._serial += 1
        version = Version(f"v{self._serial}" if self.versioning == "Enabled" else "null", body)
        kept = self.objects.setdefault(key, [])
        self.objects[key] = [version, *(one for one in kept if one.id != version.id)]
        return version.id

    @property
    def keys(self) -> set[str]:
        """Keys that a plain look finds."""
        return {key for key, versions in self.objects.items() if versions and versions[0].body is not None}

    def fail(self, kind: str, *faults: Fault, times: int = 1) -> None:
        """Have the next requests of a kind answered so."""
        self._faults.setdefault(kind, deque()).extend(list(faults) * times)

    def count(self, kind: str) -> int:
        return sum(asked.kind == kind for asked in self.asked)

    def settings(self, **more: Any) -> S3Settings:
        return S3Settings(**{"name": "s", "bucket": NAME, "endpoint_url": self.url, **more})

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        waiting = self._faults.get(asked.kind)
        if waiting:
            fault = waiting.popleft()
            reply = fault(asked) if callable(fault) else fault
            if reply is not None:
                return reply
        return getattr(self, f"_{asked.kind}")(asked)

    def _versioning(self, asked: Asked) -> Reply:
        status = f"<Status>{self.versioning}</Status>" if self.versioning else ""
        return Reply(body=f"<VersioningConfiguration>{status}</VersioningConfiguration>")

    def _head(self, asked: Asked) -> Reply:
        if asked.key not in self.keys:
            return Reply(404)
        found = self.objects[asked.key][0]
        assert found.body is not None
        headers = {
            "ETag": f'"{found.etag}"',
            "Content-Length": str(len(found.body)),
            "Last-Modified": formatdate(1_700_000_000, usegmt=True),
        }
        self.on_head(asked.key)
        return Reply(200, headers=headers)

    def _delete(self, asked: Asked) -> Reply:
        condition = asked.headers.get("If-Match", "").strip('"')
        version = asked.query.get("versionId", [None])[0]
        code, marker = self._remove(asked.key, version, condition)
        if code:
            return error({"PreconditionFailed": 412, "NoSuchKey": 404}.get(code, 403), code)
        return Reply(204, headers={"x-amz-delete-marker": "true"} if marker else {})

    def _many(self, asked: Asked) -> Reply:
        given = {name.lower() for name in asked.headers}
        if "content-md5" in given:
            digest = hashlib.md5(asked.body, usedforsecurity=False).digest()
            if asked.headers["Content-MD5"] != base64.b64encode(digest).decode():
                return error(400, "BadDigest", "The Content-MD5 did not match what we received.")
        elif not any(name.startswith("x-amz-checksum-") for name in given):
            return error(400, "InvalidRequest", "Missing required header for this request: Content-MD5")
        try:
            named = asked.named
        except ET.ParseError as reason:
            return error(400, "MalformedXML", str(reason))
        if not 1 <= len(named) <= self.most:
            return error(400, "MalformedXML", "The XML you provided was not well-formed")
        parts = []
        for entry in named:
            key, version = entry["Key"], entry.get("VersionId")
            code, marker = self._remove(key, version, entry.get("ETag", "").strip('"'))
            if key in self.forgetful:
                continue
            told = f"<Key>{escape(key)}</Key>" + (f"<VersionId>{version}</VersionId>" if version else "")
            if code:
                parts.append(f"<Error>{told}<Code>{code}</Code><Message>no</Message></Error>")
            else:
                shown = "<DeleteMarker>true</DeleteMarker>" if marker else ""
                parts.append(f"<Deleted>{told}{shown}</Deleted>")
        return Reply(body=f"<DeleteResult>{''.join(parts)}</DeleteResult>")

    def _versions(self, asked: Asked) -> Reply:
        prefix = asked.query["prefix"][0]
        parts = [
            f"<{kind}><Key>{quote_plus(key, safe='/')}</Key><VersionId>{version.id}</VersionId>"
            f"<IsLatest>{str(version is versions[0]).lower()}</IsLatest>"
            f"<ETag>&quot;{version.etag}&quot;</ETag><Size>{len(version.body or b'')}</Size>"
            f"<LastModified>2023-11-14T22:13:20.000Z</LastModified>"
            f"</{kind}>"
            for key, versions in sorted(self.objects.items())
            if key.startswith(prefix)
            for version in versions
            for kind in ["DeleteMarker" if version.body is None else "Version"]
        ]
        return Reply(
            body=f"<ListVersionsResult><EncodingType>url</EncodingType>{''.join(parts)}</ListVersionsResult>"
        )

    def _remove(self, key: str, version: str | None, etag: str) -> tuple[str | None, bool]:
        """Delete as S3 does; an error code, and whether a marker was made."""
        if code := self.denied.get(version or key):
            return code, False
        if etag and not self.ignores_conditions:
            if key not in self.keys:
                return "NoSuchKey", False
            if etag not in ("*", self.objects[key][0].etag):
                return "PreconditionFailed", False
        if version is not None:
            self.objects[key] = [one for one in self.objects.get(key, []) if one.id != version]
            return None, False
        if self.versioning:
            self._add(key, None)
            return None, True
        self.objects.pop(key, None)
        return None, False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"
    wbufsize = -1  # an answer in one piece: the client need not wait for the rest of it
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._serve("versioning" if "versioning" in self._query else "versions")

    def do_HEAD(self) -> None:
        self._serve("head")

    def do_DELETE(self) -> None:
        self._serve("delete")

    def do_POST(self) -> None:
        self._serve("many")

    @property
    def _query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    def _serve(self, kind: str) -> None:
        path = re.sub(r"\?.*", "", self.path, flags=re.DOTALL)
        key = unquote(path.removeprefix(f"/{NAME}").removeprefix("/"))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reply = self.server.bucket.answer(Asked(kind, path, key, self._query, self.headers, body))
        content = reply.body.encode()
        self.send_response(reply.status)
        for name, value in ({"Content-Length": str(len(content))} | dict(reply.headers)).items():
            if not (reply.status == 204 and name == "Content-Length"):
                self.send_header(name, value)
        self.end_headers()
        if reply.cut is not None:
            self.wfile.write(content[: reply.cut])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Where a bucket answers; each test gives it a new one."""

    daemon_threads = True
    block_on_close = False
    bucket: Bucket

    def fresh(self) -> Bucket:
        self.bucket = Bucket()
        self.bucket.url = f"http://127.0.0.1:{self.server_address[1]}"
        return self.bucket

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that went away is what some tests are about


def nobodys_credentials(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Have boto3 find credentials that mean nothing, and nothing of this machine's own."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        patch.setenv(name, str(folder / "none"))


@contextmanager
def serving() -> Iterator[Server]:
    """A server on 127.0.0.1 until the end of the block."""
    with Server(("127.0.0.1", 0), _Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
