"""Ownership: what happens to a clip between "verified" and "stored", however long that takes.

Belongs here: commit to the bucket, then the catalog's row, then the local copy's last place, in
that order, again and again until it is done; also after a restart. Must not know: viewers, and
where the clip came from beyond its URL.

    verified ─▶ kept on disk ─▶ committed ─▶ row says stored ─▶ cached | linked into the bucket
                     ▲               │              │
                     └── backoff ────┴──────────────┘   the bucket or the catalog is down

A clip is kept, and near, from the moment that it is verified. Everything after that goes on beside
the viewers and beside the fills, so that a bucket which hangs takes no fill's place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import structlog
from cachetools import LRUCache

from proxy.clock import Clock
from proxy.delivery.commit import Commits, new_object
from proxy.delivery.fill import Filled
from proxy.delivery.flights import Flight
from proxy.delivery.kept import Kept, find_kept
from proxy.delivery.ledger import Ledger, Rows, Superseded
from proxy.delivery.shelf import Shelf
from proxy.delivery.sources import BucketSource, Source, UpstreamSource
from proxy.errors import (
    CatalogError,
    CorruptClip,
    FirstviewError,
    ObjectConflict,
)
from proxy.media import mp4
from proxy.records import ClipFacts, Generation, MediaFacts, Status
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import Bucket, Upload
from proxy.storage.disk_cache import DiskCache
from proxy.storage.open_files import OpenFile, OpenFiles
from proxy.telemetry.metrics import Metrics

_RETRIES_AT_ONCE = 4
_DISTRUSTED = 1024

log = structlog.get_logger()


class Ownership:
    """Takes verified clips over, and finishes what an outage or a restart left unfinished."""

    def __init__(
        self,
        settings: Settings,
        *,
        bucket: Bucket,
        rows: Rows,
        disk: DiskCache,
        files: OpenFiles,
        spool_dir: Path,
        executor: Executor,
        clock: Clock,
        metrics: Metrics,
        keeps_copies: bool = True,
    ) -> None:
        """Take the parts it works with."""
        self._settings = settings
        self._bucket = bucket
        self._disk = disk
        self._spool_dir = spool_dir
        self._clock = clock
        self._metrics = metrics
        self.on_stored: Callable[[ClipFacts], None] = _nobody_asked
        """Told of every clip that has just been stored."""
        self._commits = Commits(settings, bucket, clock, metrics)
        self._ledger = Ledger(rows, clock, metrics)
        self._shelf = Shelf(disk, files, executor, keeps=keeps_copies)
        self._kept: dict[str, Kept] = {}
        self._unfinished: list[str] = []
        self._left_behind: list[str] = []
        self.distrusted: LRUCache[str, bool] = LRUCache(_DISTRUSTED)
        """Ids whose object in the bucket was read and is not what it says it is."""
        self._wake = asyncio.Event()
        self._attempts: set[asyncio.Task[bool]] = set()

    # -- what a fill tells ---

    async def seen(self, flight: Flight, source: Source, facts: ClipFacts) -> Upload | None:
        """Fix the facts beside the reply, and begin the upload of a clip that is not ours yet."""
        if not isinstance(source, UpstreamSource):
            return None
        self._ledger.source_seen(source, facts, asked=not flight.by_job)
        path = self._spool_dir / f"{keys.spool_name(facts.request_id, source.name)}.part"
        return self._bucket.upload(new_object(facts, source.row.prompt_hash), path)

    def abandon(self, upload: Upload) -> None:
        """Abort the upload of a clip that turned out to be none, without anyone waiting for it."""
        self._commits.abandon(upload)

    async def refused(self, source: Source, error: FirstviewError) -> None:
        """Let the catalog count what the source or the bucket does not have."""
        if isinstance(source, BucketSource) and isinstance(error, CorruptClip):
            self.distrusted[source.request_id] = True
        self._ledger.refused(source, error)

    def adopted(self, row: Generation | None, facts: ClipFacts) -> None:
        """A local bucket has a clip: let the catalog know it, if it does not."""
        if row is None or row.status is not Status.STORED or row.etag is None:
            self._ledger.in_bucket(row, facts, None)

    async def take(self, filled: Filled) -> None:
        """Own a verified clip from here on. It is a hit already; its upload goes on beside."""
        source = filled.source
        file = OpenFile(os.dup(filled.spool.fd), filled.facts, "disk")
        if not isinstance(source, UpstreamSource):
            await self._cache(filled, file)
            return
        kept = Kept(
            facts=filled.facts,
            sha256=filled.sha256,
            fal_url=source.url,
            prompt_hash=source.row.prompt_hash,
            path=filled.spool.path,
            reservation=filled.reservation,
            file=file,
            upload=filled.upload,
            busy=True,
        )
        self._kept[kept.facts.request_id] = kept
        await self._shelf.write(kept, durable=False)
        attempt = asyncio.create_task(self._attempt(kept), name=f"store {kept.facts.request_id}")
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)

    async def _cache(self, filled: Filled, file: OpenFile) -> None:
        """A clip that came from the bucket: nothing to commit, only to keep near."""
        if await self._shelf.place(filled.spool.path, file, filled.reservation):
            self._ledger.in_bucket(filled.source.row, filled.facts, filled.sha256)

    # -- what viewers ask ---

    def kept(self, request_id: str) -> OpenFile | None:
        """A whole clip that its bucket does not have yet."""
        kept = self._kept.get(request_id)
        return None if kept is None or kept.discarded else kept.file

    def __len__(self) -> int:
        """How many clips wait for the bucket or the catalog."""
        return len(self._kept)

    def __contains__(self, request_id: str) -> bool:
        """Whether a clip waits, or is just being cleared away."""
        return request_id in self._kept

    async def outcome(self, request_id: str) -> FirstviewError | None:
        """Wait until nothing of a clip is being stored; what the last attempt failed with, if any.

        Returns as soon as one attempt has failed: what is tried again may take an outage.
        """
        kept = self._kept.get(request_id)
        if kept is not None:
            await kept.tried.wait()
            return kept.failure
        await self._ledger.settled(request_id)
        return None

    def retry_now(self) -> None:
        """Try again at once to store what is kept."""
        self._all_are_due()

    async def disown(self, request_id: str) -> None:
        """The id was re-pointed: what is kept under it is of no use."""
        kept = self._kept.get(request_id)
        if kept is not None:
            kept.superseded = True
            await self._shelf.discard(kept)

    # -- until it is done ---

    async def load(self) -> None:
        """Find what an earlier process left: whole clips are kept, everything else removed."""
        spooled = await self._shelf.in_thread(lambda: find_kept(self._spool_dir))
        for found in spooled.whole:
            reservation = self._disk.claim(found.facts.length)
            self._kept[found.facts.request_id] = Kept.from_disk(found, reservation)
        self._unfinished = spooled.removed
        self._left_behind = [*spooled.removed, *self._kept]
        if self._kept:
            log.info("clips are waiting for the bucket", count=len(self._kept))

    async def run(self) -> None:
        """Try again what is due, for ever; one success makes all the others due at once."""
        aftermath = [
            asyncio.create_task(self._commits.clear(self._left_behind)),
            asyncio.create_task(self._have_the_unfinished_mirrored()),
        ]
        try:
            while True:
                await self._try_what_is_due()
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._until_due())
        finally:
            for task in aftermath:
                task.cancel()
            await asyncio.gather(*aftermath, return_exceptions=True)

    async def _have_the_unfinished_mirrored(self) -> None:
        """Let jobs bring in what a process was bringing in when it died, viewers or no viewers.

        Their jobs may not have been filed yet. Tried until the catalog has heard.
        """
        wait = self._settings.bucket_retry_wait
        while self._unfinished:
            try:
                await self._ledger.wanted(self._unfinished)
            except CatalogError as error:
                log.info("cannot ask for unfinished clips yet", detail=error.detail)
                await asyncio.sleep(wait)
                wait = min(self._settings.bucket_retry_max_wait, wait * 2)
            else:
                log.info("unfinished clips are going to be mirrored", count=len(self._unfinished))
                self._unfinished = []

    async def _try_what_is_due(self) -> None:
        now = self._clock.monotonic()
        due = [kept for kept in self._kept.values() if not kept.busy and kept.due <= now]
        for start in range(0, len(due), _RETRIES_AT_ONCE):
            batch = [kept for kept in due[start : start + _RETRIES_AT_ONCE] if not kept.busy]
            if any(await asyncio.gather(*(self._attempt(kept) for kept in batch))):
                self._all_are_due()

    def _all_are_due(self) -> None:
        for kept in self._kept.values():
            kept.due = 0.0
        self._wake.set()

    def _until_due(self) -> float | None:
        now = self._clock.monotonic()
        waits = [kept.due - now for kept in self._kept.values() if not kept.busy]
        return max(0.05, min(waits)) if waits else None

    async def _attempt(self, kept: Kept) -> bool:
        """Bring a clip as far as it gets; returns whether that was the end. Raises nothing."""
        kept.busy = True
        try:
            await self._store(kept)
        except ObjectConflict as error:
            await self._give_up(kept, error)
        except Superseded:
            await self._drop(kept)
        except CorruptClip as error:  # cut short on the disk: the source has to be asked again
            log.warning("a kept clip broke", request_id=kept.facts.request_id, error=error.detail)
            await self._drop(kept)
        except FirstviewError as error:
            await self._postpone(kept, error)
        except Exception as error:
            log.exception("storing crashed", request_id=kept.facts.request_id)
            await self._postpone(kept, FirstviewError(str(error)))
        else:
            return True
        finally:
            kept.busy = False
        return False

    async def _store(self, kept: Kept) -> None:
        """Bucket, catalog, local copy. Raises BucketError, CatalogError, Superseded."""
        facts = kept.facts
        if not kept.committed:
            if kept.tries:
                with contextlib.suppress(CatalogError):  # then the key's condition decides
                    await self._ledger.confirm(kept)
            await self._commits.commit(kept, lambda: self._ledger.confirm(kept))
            kept.committed = True
        await self._ledger.stored(kept, await self._described(kept))
        self.on_stored(facts)
        await self._shelf.settle(kept, linked=self._bucket.is_local)
        kept.failure = None
        await self._drop(kept)
        log.info("stored", request_id=facts.request_id, bytes=facts.length, sha256=kept.sha256)

    async def _described(self, kept: Kept) -> MediaFacts | None:
        """What the mp4 says of itself; never a reason not to store it."""
        fd, length = kept.file.fd, kept.facts.length
        return await self._shelf.in_thread(lambda: mp4.describe_file(fd, length))

    async def _postpone(self, kept: Kept, error: FirstviewError) -> None:
        if kept.superseded:
            await self._drop(kept)
            return
        kept.tries += 1
        kept.failure = error
        kept.tried.set()
        longest = self._settings.bucket_retry_max_wait
        wait = min(longest, self._settings.bucket_retry_wait * 2 ** min(kept.tries - 1, 20))
        wait = wait / 2 + self._clock.jitter(wait / 2)
        kept.due = self._clock.monotonic() + wait
        if kept.tries == 1:  # it may have to outlive more than this process from here on
            await self._shelf.write(kept, durable=True)
        self._metrics.store_failures.labels(error.slug).inc()
        log.warning(
            "kept on disk, will try again",
            request_id=kept.facts.request_id,
            error=error.slug,
            detail=error.detail,
            tries=kept.tries,
            wait=round(wait, 1),
        )
        self._wake.set()

    async def _give_up(self, kept: Kept, error: ObjectConflict) -> None:
        """The key holds bytes that we did not write: they stay, and the log says so.

        Our copy stays too, in the disk cache, or every view would fetch the clip again.
        """
        kept.failure = error
        self._metrics.store_failures.labels(error.slug).inc()
        log.error(
            "the bucket holds other bytes under this id; they were left untouched",
            request_id=kept.facts.request_id,
            key=keys.clip_key(kept.facts.request_id),
        )
        if kept.superseded:
            await self._drop(kept)
        else:
            await self._shelf.settle(kept, linked=False)
            await self._drop(kept)

    async def _drop(self, kept: Kept) -> None:
        """Forget a clip, and clear away what is left of it here and in the bucket."""
        kept.tried.set()
        upload, kept.upload = kept.upload, None
        if upload is not None:
            self._commits.abandon(upload)
        await self._shelf.discard(kept)
        if self._kept.get(kept.facts.request_id) is kept:
            del self._kept[kept.facts.request_id]

    async def close(self, timeout: float) -> None:
        """Let uploads and notes finish for a while; kept clips stay on disk for the next start."""
        if self._attempts:
            _, late = await asyncio.wait(set(self._attempts), timeout=timeout)
            for attempt in late:
                attempt.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._ledger.close(timeout)
        await self._commits.close([kept.upload for kept in self._kept.values() if kept.upload])
        for kept in self._kept.values():
            kept.file.release()
        self._kept.clear()


def _nobody_asked(_facts: ClipFacts) -> None:
    """Until somebody wants to hear."""
