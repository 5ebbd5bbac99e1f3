"""From a bucket's URL to the bucket.

Belongs here: which URL means which implementation. Must not know: anything else of either.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
from prometheus_client import Counter

from proxy.errors import SettingsError
from proxy.settings import Settings
from proxy.storage.bucket import Bucket
from proxy.storage.directory import DirectoryBucket

# ruff: noqa: PLC0415 - botocore costs a process 8 MiB and every start a third of a second


async def open_bucket(
    url: str,
    settings: Settings,
    session: aiohttp.ClientSession | None = None,
    retries: Counter | None = None,
) -> Bucket:
    """Open the bucket that a URL names: `s3://name` or `file:///path`; the caller closes it.

    `session` carries the bytes to and from an S3 store and stays the caller's; see
    `http.new_session` for what it should be made like, which is also used if there is none.
    `retries` counts by their label which of a store's requests were made again.
    Nothing is asked of an S3 store yet: `Bucket.check` finds out whether it can be used. Raises
    SettingsError for any other URL, and BucketError for a directory that cannot be used.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc and parts.path in {"", "/"}:
        from proxy.storage.s3 import S3Bucket

        return await S3Bucket.opened(parts.netloc, settings, session, retries)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return await DirectoryBucket.at(Path(unquote(parts.path)))
    raise SettingsError("FIRSTVIEW_BUCKET_URL must be s3://name or file:///absolute/path")
