"""From a bucket's URL to the bucket.

Belongs here: which URL means which implementation. Must not know: anything else of either.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp

from proxy.errors import SettingsError
from proxy.settings import Settings
from proxy.storage.bucket import Bucket
from proxy.storage.directory import DirectoryBucket


async def open_bucket(
    url: str, settings: Settings, session: aiohttp.ClientSession | None
) -> Bucket:
    """Open the bucket that a URL names: `s3://name` or `file:///path`; the caller closes it.

    Raises SettingsError for any other URL and BucketError if a directory cannot be used.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return await DirectoryBucket.at(Path(unquote(parts.path)))
    raise SettingsError("FIRSTVIEW_BUCKET_URL must be s3://name or file:///absolute/path")
