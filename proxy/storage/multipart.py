"""The beginning and the removal of one object's multipart upload.

Belongs here: knowing which uploads the store may keep on our account, until it keeps none. Must
not know: parts, or what completes an upload.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import structlog

from proxy.errors import BucketError, BucketUnavailable
from proxy.storage.bucket import NewObject
from proxy.storage.s3_calls import S3Calls

log = structlog.get_logger()

ABORTS = 5
ABORT_WAIT = 0.2
"""Seconds before the second abort; doubles."""
BEGIN_GRACE = 5.0
"""Seconds that an abort waits for the reply that names the upload it has to abort."""
CLOCK_GRACE = 5.0


class Multipart:
    """At most one upload in use, and whatever has to be aborted."""

    def __init__(self, calls: S3Calls, new: NewObject) -> None:
        """Begin nothing yet."""
        self._calls = calls
        self._new = new
        self._made_at = time.monotonic()
        self._beginning: asyncio.Task[str] | None = None
        self._dropped: set[str] = set()
        self._uncertain = False
        """Whether an upload may be open whose id we were never told: a reply got lost."""

    async def upload_id(self) -> str:
        """The id of the upload in use; the first who asks begins it, for all who ask meanwhile."""
        if self._beginning is None:
            self._beginning = asyncio.create_task(self._begin())
        return await asyncio.shield(self._beginning)

    def completed(self) -> None:
        """The upload in use is an object now; there is nothing to abort."""
        self._beginning = None

    async def drop(self) -> bool:
        """Abort everything that the store may keep on our account. Never raises BucketError.

        What cannot be aborted now (False) is tried again by the next call.
        """
        await self._stop_beginning()
        try:
            for upload_id in list(self._dropped):
                await self._abort_until_gone(upload_id)
                self._dropped.discard(upload_id)
            if self._uncertain:
                await self._sweep_strays()
                self._uncertain = False
        except BucketError as error:
            log.warning(
                "an upload could not be aborted",
                key=self._new.key,
                error=error.slug,
                detail=error.detail,
            )
            return False
        return True

    async def _begin(self) -> str:
        try:
            upload_id, repeated = await self._calls.begin(self._new)
        except BaseException:
            self._beginning = None
            self._uncertain = True
            raise
        self._uncertain = self._uncertain or repeated
        return upload_id

    async def _stop_beginning(self) -> None:
        beginning = self._beginning
        if beginning is None:
            return
        # Cancelled at once, it might yet begin an upload that nobody knows of.
        done, _ = await asyncio.wait({beginning}, timeout=BEGIN_GRACE)
        if not done:
            beginning.cancel()
            await asyncio.wait({beginning})
        if self._beginning is beginning:  # not earlier: a cancelled drop must find it again
            self._beginning = None
        if not beginning.cancelled() and beginning.exception() is None:
            self._dropped.add(beginning.result())

    async def _abort_until_gone(self, upload_id: str) -> None:
        """Parts may land after an abort, so it is repeated until the store has none.

        docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html
        """
        for attempt in range(ABORTS):
            await self._calls.abort(self._new.key, upload_id)
            if not await self._calls.is_open(self._new.key, upload_id):
                return
            await asyncio.sleep(ABORT_WAIT * 2**attempt)
        raise BucketUnavailable("the bucket still keeps an upload that was aborted")

    async def _sweep_strays(self) -> None:
        """Abort uploads of this key that are as young as ours.

        One of another replica may be among them; it finds its upload gone and begins anew.
        """
        age = timedelta(seconds=time.monotonic() - self._made_at + CLOCK_GRACE)
        async for upload, now in self._calls.open_uploads(self._new.key):
            if upload.key == self._new.key and now - upload.initiated <= age:
                await self._calls.abort(upload.key, upload.upload_id)
