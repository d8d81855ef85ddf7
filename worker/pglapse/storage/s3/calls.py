"""What is asked of a bucket and what comes back, as the rest of this package sees it: without boto3."""

from dataclasses import dataclass

from pglapse.storage import Expected


@dataclass(frozen=True, slots=True)
class Target:
    """What to delete: a key, or one version of it; with ``etag``, only if its content is still that."""

    key: str
    version: str | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """The server deleted it, or, with ``marker``, only hid it behind a delete marker."""

    marker: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key as it is listed; a delete marker is one, without content."""

    id: str
    latest: bool
    marker: bool
    found: Expected


@dataclass(frozen=True, slots=True)
class Versioning:
    """Whether a bucket keeps versions (None: never did), and whether deleting one takes a one-time code."""

    status: str | None = None
    mfa_delete: bool = False
