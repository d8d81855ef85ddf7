"""A bucket, as ``pglapse.toml`` describes it. Credentials are not among its keys: boto3 has its own ways."""

import re
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

from pglapse.errors import SettingError
from pglapse.known import only_known
from pglapse.paths import BadPath
from pglapse.storage.s3.keys import folder

Versions = Literal["refuse", "marker", "purge"]
Addressing = Literal["auto", "path", "virtual"]

MOST = 1000  # keys that S3 takes in one request
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
KEYS = {
    "kind", "bucket", "prefix", "endpoint_url", "region", "profile", "versions", "batch_size", "addressing",
}  # fmt: skip
SECRET = re.compile(r"secret|token|password|credential|access_?key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class S3Settings:
    """A bucket of S3, or of a server that speaks like it."""

    name: str
    bucket: str
    prefix: str = ""
    """Begins every key; empty, or ends in a slash."""
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    versions: Versions = "refuse"
    """What to do where a delete only adds a marker: nothing, add it, or delete all versions of the key."""
    batch_size: int = MOST
    """Keys in one request, at most."""
    addressing: Addressing = "auto"
    """Where the bucket's name goes. auto: into the path for a server that is not AWS, else as AWS likes."""


def s3_settings(where: str, name: str, table: dict[str, Any]) -> S3Settings:
    """The settings in a table ``[storage.NAME]`` of kind s3; raises `SettingError`."""
    for key in table:
        if key not in KEYS and SECRET.search(key):
            raise SettingError(
                f"{where}: credentials don't belong into this file",
                hint="boto3 finds them by itself: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile "
                '(profile = "…"), or the role of the machine or container',
            )
    only_known(where, "key ", table, KEYS)
    return S3Settings(
        name=name,
        bucket=_bucket(where, table),
        prefix=_prefix(where, table),
        endpoint_url=_endpoint_url(where, table),
        region=_text(where, table, "region"),
        profile=_text(where, table, "profile"),
        versions=cast("Versions", _choice(where, table, "versions", get_args(Versions)) or "refuse"),
        batch_size=_batch_size(where, table),
        addressing=cast("Addressing", _choice(where, table, "addressing", get_args(Addressing)) or "auto"),
    )


def _bucket(where: str, table: dict[str, Any]) -> str:
    bucket = _text(where, table, "bucket")
    if bucket is None:
        raise SettingError(f'{where}: bucket is missing (bucket = "uploads")')
    if not BUCKET.fullmatch(bucket):
        raise SettingError(
            f"{where}: {bucket!r} can't be the name of a bucket",
            hint="the bare name, without s3:// and without a folder: that goes into prefix",
        )
    return bucket


def _prefix(where: str, table: dict[str, Any]) -> str:
    prefix = table.get("prefix", "")
    if not isinstance(prefix, str):
        raise SettingError(f'{where}: prefix must be text (prefix = "uploads/")')
    try:
        return folder(prefix)
    except BadPath as error:
        raise SettingError(f"{where}: prefix: {error}") from None


def _endpoint_url(where: str, table: dict[str, Any]) -> str | None:
    url = _text(where, table, "endpoint_url")
    if url is None:
        return None
    example = 'endpoint_url = "https://minio.example.org:9000"'
    try:
        parts = urlsplit(url)
        complete = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        complete = False
    if not complete:
        raise SettingError(f"{where}: endpoint_url must be a URL of http or https ({example})")
    if parts.username or parts.password:
        raise SettingError(f"{where}: endpoint_url must not hold a name or a password ({example})")
    if parts.query or parts.fragment:
        raise SettingError(f"{where}: endpoint_url must end with the host or a path ({example})")
    return url


def _batch_size(where: str, table: dict[str, Any]) -> int:
    size = table.get("batch_size", MOST)
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MOST:
        raise SettingError(f"{where}: batch_size must be a number from 1 to {MOST:,}")
    return size


def _text(where: str, table: dict[str, Any], key: str) -> str | None:
    value = table.get(key)
    if value is not None and (not isinstance(value, str) or not value or not value.isprintable()):
        raise SettingError(f"{where}: {key} must be text on one line, and not empty")
    return value


def _choice(where: str, table: dict[str, Any], key: str, known: tuple[str, ...]) -> str | None:
    value = table.get(key)
    if value is not None and value not in known:
        raise SettingError(f"{where}: {key} must be one of {', '.join(known)}, not {value!r}")
    return value
