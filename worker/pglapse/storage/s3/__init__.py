"""Objects of S3, and of servers that speak like it, through boto3: ``pip install 'pglapse[s3]'``."""

from concurrent.futures import Executor

from pglapse.errors import SettingError
from pglapse.storage.s3.settings import S3Settings
from pglapse.storage.s3.storage import S3Storage
from pglapse.text import printable

__all__ = ["S3Storage", "open_s3"]


def open_s3(settings: S3Settings, pool: Executor, *, threads: int = 1) -> S3Storage:
    """A storage for a bucket. The server is not asked yet.

    Raises `SettingError` when boto3 is not here, or can't make a client of the settings.
    """
    try:
        import boto3  # noqa: F401, PLC0415
    except ImportError as error:
        raise SettingError(
            f"storage.{printable(settings.name)}: kind s3 needs boto3 ({error})",
            hint="pip install 'pglapse[s3]'",
        ) from error
    from pglapse.storage.s3.client import Client  # noqa: PLC0415

    return S3Storage(
        settings.name,
        Client(settings, threads),
        pool,
        prefix=settings.prefix,
        versions=settings.versions,
        batch_size=settings.batch_size,
    )
