"""Commit: bringing a verified local file into the bucket, and leaving nothing else there.

Belongs here: what an upload's failures mean for its next try, what may be replaced, and the parts
that uploads of an earlier process left. Must not know: when a clip is tried again, the catalog,
local files.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta

import structlog

from proxy.clock import Clock
from proxy.delivery import identity
from proxy.delivery.kept import Kept
from proxy.errors import BucketError, BucketUnavailable, ObjectConflict
from proxy.records import CLIP_CONTENT_TYPE, ClipFacts
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import Bucket, NewObject, ObjectInfo, Upload
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.of_storage import CONFLICT
from proxy.telemetry.values import FAILED, OK

CLOSING = 10.0
"""Seconds that uploads get at the end to be aborted; the next start looks for what they leave."""
_ABORTS = 8

log = structlog.get_logger()


class Commits:
    """Writes clips into the bucket, and clears away what unfinished uploads left there."""

    def __init__(self, settings: Settings, bucket: Bucket, clock: Clock, metrics: Metrics) -> None:
        """Take the bucket, and how long to wait between two looks for leftovers."""
        self._bucket = bucket
        self._clock = clock
        self._metrics = metrics
        self._wait = settings.bucket_retry_wait
        self._longest_wait = settings.bucket_retry_max_wait
        self._began = clock.monotonic()
        self._aborting: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def begin(self, kept: Kept, replaces: str | None = None) -> Upload:
        """Begin the upload of a kept clip; nothing is sent yet."""
        new = new_object(kept.facts, kept.prompt_hash, replaces)
        return self._bucket.upload(new, kept.path)

    async def commit(self, kept: Kept, sha256: str, confirm: Callable[[], Awaitable[None]]) -> None:
        """Make the clip's object visible, whole.

        What an outage interrupts stays in `kept.upload`, so that what was sent is not sent again.
        `confirm` may object, by raising, before other bytes of ours are replaced. Raises
        BucketError; ObjectConflict if the key holds bytes that are not ours to replace.
        """
        began, result = self._clock.monotonic(), FAILED
        try:
            await self._commit(kept, sha256, confirm)
            result = OK
        except ObjectConflict:
            result = CONFLICT
            raise
        finally:
            self._metrics.commits.labels(result).observe(self._clock.monotonic() - began)
        self._metrics.stored.inc()
        self._metrics.stored_bytes.inc(kept.facts.length)

    async def _commit(
        self, kept: Kept, sha256: str, confirm: Callable[[], Awaitable[None]]
    ) -> None:
        upload = kept.upload or self.begin(kept)
        kept.upload = upload
        try:
            await upload.commit(sha256)
        except BucketUnavailable:
            raise
        except ObjectConflict:
            kept.upload = None
            self.abandon(upload)
            await self._replace(kept, sha256, confirm)
        except Exception:  # the same parts would be refused again
            kept.upload = None
            self.abandon(upload)
            raise
        kept.upload = None

    async def _replace(
        self, kept: Kept, sha256: str, confirm: Callable[[], Awaitable[None]]
    ) -> None:
        """Replace only what we wrote ourselves; else ObjectConflict.

        That is the clip of the id's former source, or this very clip with bytes that are not its
        own any more: the upload has just compared them.
        """
        info = await self._bucket.head(keys.clip_key(kept.facts.request_id))
        if info is not None and not _is_ours(info):
            raise ObjectConflict
        await confirm()
        upload = self.begin(kept, None if info is None else info.etag)
        try:
            await upload.commit(sha256)
        except BaseException:
            self.abandon(upload)
            raise

    def abandon(self, upload: Upload) -> None:
        """Abort an upload that nobody needs any more, beside whatever is going on."""
        self._metrics.abandoned.inc()
        task = asyncio.create_task(self._abort(upload))
        self._aborting.add(task)
        task.add_done_callback(self._aborting.discard)

    async def _abort(self, upload: Upload) -> None:
        """Abort until nothing is left, however often the bucket is away meanwhile."""
        for tried in range(_ABORTS):
            if await upload.abort() or self._closing.is_set():
                return
            with contextlib.suppress(TimeoutError):
                wait = min(self._longest_wait, self._wait * 2**tried)
                await asyncio.wait_for(self._closing.wait(), wait)

    # -- what earlier processes left ---

    async def clear(self, request_ids: Iterable[str]) -> None:
        """Abort what an earlier process of this machine left of these clips.

        Tried until the bucket lets it be done; only uploads that are older than this process are
        touched. What nobody remembers is the sweep's; but in a local bucket leftovers have no
        names, and are looked for whatever is remembered.
        """
        if self._bucket.is_local:
            await self._until_done(keys.VIDEOS_PREFIX)
            return
        for request_id in request_ids:
            await self._until_done(keys.clip_key(request_id))

    async def _until_done(self, prefix: str) -> None:
        wait = self._wait
        while True:
            age = timedelta(seconds=self._clock.monotonic() - self._began)
            try:
                aborted = await self._bucket.abort_uploads(prefix, age)
            except BucketError as error:
                log.info("cannot look for unfinished uploads yet", detail=error.detail)
                await asyncio.sleep(wait)
                wait = min(self._longest_wait, wait * 2)
            else:
                if aborted:
                    log.info("unfinished uploads were aborted", prefix=prefix, count=aborted)
                return

    async def close(self, uploads: Iterable[Upload]) -> None:
        """Abort what is unfinished, within a few seconds; the next start does the rest."""
        self._closing.set()
        for upload in uploads:
            self.abandon(upload)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING):
                await asyncio.gather(*self._aborting, return_exceptions=True)


def _is_ours(info: ObjectInfo) -> bool:
    return info.altered or keys.META_ETAG in info.metadata


def new_object(facts: ClipFacts, prompt_hash: str | None, replaces: str | None = None) -> NewObject:
    """What is going to be written: the clip's key, type and metadata."""
    return NewObject(
        key=keys.clip_key(facts.request_id),
        size=facts.length,
        content_type=CLIP_CONTENT_TYPE,
        metadata=identity.metadata_of(facts, prompt_hash),
        replaces=replaces,
    )
