"""An S3 bucket: R2, AWS, Tigris, or any other store with the same API.

Belongs here: the bucket protocol over the calls. Must not know: how a call is made or retried, or
what is done with objects.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Self

import aiohttp
from prometheus_client import Counter

from proxy.errors import BucketRefused, CorruptClip
from proxy.records import CLIP_CONTENT_TYPE
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import LocalObject, NewObject, ObjectInfo
from proxy.storage.disk_threads import Disk
from proxy.storage.http import HttpClient, HttpStream, new_session
from proxy.storage.presign import Presigner
from proxy.storage.s3_calls import S3Calls
from proxy.storage.s3_client import open_client
from proxy.storage.upload import S3Upload


class S3Bucket:
    """See `Bucket`; made by `opened`."""

    def __init__(
        self, name: str, calls: S3Calls, settings: Settings, stack: contextlib.AsyncExitStack
    ) -> None:
        """Take the calls, and what has to be closed at the end."""
        self._name = name
        self._calls = calls
        self._settings = settings
        self._stack = stack
        self._disk = Disk()

    @classmethod
    async def opened(
        cls,
        name: str,
        settings: Settings,
        session: aiohttp.ClientSession | None = None,
        retries: Counter | None = None,
    ) -> Self:
        """Make the clients; nothing is asked of the store yet, see `check`.

        Bytes travel through `session`, which stays the caller's; without one the bucket has its
        own. Raises BucketRefused if what is configured makes no client.
        """
        async with contextlib.AsyncExitStack() as stack:
            if session is None:
                session = await stack.enter_async_context(new_session())
            try:
                opened = await stack.enter_async_context(open_client(settings))
            except ValueError as error:  # botocore's word for an endpoint that is no URL
                raise BucketRefused(f"no S3 client can be made: {error}") from error
            signer = Presigner(opened.client, opened.credentials, name)
            bytes_ = HttpClient(session, settings, opened.tls)
            calls = S3Calls(opened.client, signer, bytes_, name, settings, retries=retries)
            return cls(name, calls, settings, stack.pop_all())

    @property
    def name(self) -> str:
        """The bucket as an s3: URL."""
        return f"s3://{self._name}"

    async def head(self, key: str) -> ObjectInfo | None:
        """See `Bucket.head`."""
        found = await self._calls.head(key)
        return None if found is None else found[0]

    async def open(
        self, key: str, start: int = 0, stop: int | None = None, *, etag: str | None = None
    ) -> HttpStream:
        """See `Bucket.open`. Raises CorruptClip if no byte lies between start and stop.

        A store that ignores the range answers with the whole object; `head.start` says so.
        """
        if stop is not None and stop <= start:
            raise CorruptClip(f"no byte lies between {start} and {stop}")
        return await self._calls.get(key, start, stop, etag)

    def upload(self, new: NewObject, path: Path) -> S3Upload:
        """See `Bucket.upload`."""
        return S3Upload(self._calls, new, path, self._settings, self._disk)

    @property
    def is_local(self) -> bool:
        """False: the objects are elsewhere."""
        return False

    async def open_local(self, key: str) -> LocalObject | None:
        """None: the objects are elsewhere."""
        del key
        return None

    async def presigned(self, key: str) -> str | None:
        """See `Bucket.presigned`."""
        return await self._calls.presigned(key)

    def seems_here(self, key: str) -> bool:
        """False: the objects are elsewhere."""
        del key
        return False

    def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """See `Bucket.list`; types and metadata are left out, as S3 leaves them out."""
        return self._calls.list(prefix)

    async def delete(self, key: str) -> None:
        """See `Bucket.delete`."""
        await self._calls.delete(key)

    async def abort_uploads(self, prefix: str, older_than: timedelta) -> int:
        """See `Bucket.abort_uploads`."""
        aborted = 0
        async for upload, now in self._calls.open_uploads(prefix):
            if now - upload.initiated >= older_than:
                await self._calls.abort(upload.key, upload.upload_id)
                aborted += 1
        return aborted

    async def check(self) -> None:
        """See `Bucket.check`: lists one name, then begins and aborts an upload.

        Together these need every right that is used but reading and deleting, and leave nothing.
        """
        try:
            await self._calls.may_list()
        except BucketRefused as error:
            raise BucketRefused(
                f"{self.name} at {self._calls.endpoint} cannot be used: {error.detail}. The bucket "
                "must exist, and its credentials must be allowed to list it: without that right, "
                "a clip that is not there cannot be told from one that may not be read"
            ) from error
        new = NewObject(
            key=keys.clip_key(f"firstview-check-{uuid.uuid4().hex}"),
            size=0,
            content_type=CLIP_CONTENT_TYPE,
            metadata={},
        )
        try:
            upload_id, _ = await self._calls.begin(new)
            await self._calls.abort(new.key, upload_id)
        except BucketRefused as error:
            raise BucketRefused(f"{self.name} cannot be written to: {error.detail}") from error

    async def close(self) -> None:
        """See `Bucket.close`."""
        await self._disk.close()
        await self._stack.aclose()
