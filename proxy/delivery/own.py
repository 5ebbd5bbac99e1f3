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
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from proxy.clock import Clock
from proxy.delivery import identity
from proxy.delivery.commit import Commits, new_object
from proxy.delivery.fill import Filled
from proxy.delivery.flights import Flight
from proxy.delivery.kept import Kept, find_kept
from proxy.delivery.notes import Notes
from proxy.delivery.sources import BucketSource, Source, UpstreamSource
from proxy.errors import (
    CatalogError,
    CorruptClip,
    FirstviewError,
    ObjectConflict,
    ObjectMissing,
    SourceRefused,
)
from proxy.records import CLIP_CONTENT_TYPE, ClipFacts, Generation, Status
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import Bucket, Upload
from proxy.storage.disk_cache import DiskCache, Reservation
from proxy.storage.open_files import OpenFile, OpenFiles
from proxy.telemetry.metrics import Metrics

_RETRIES_AT_ONCE = 4
_LOOK_AGAIN = 1.0

T = TypeVar("T")

log = structlog.get_logger()


class Rows(Protocol):
    """What ownership tells the catalog; `proxy.catalog.generations.Generations` keeps it."""

    async def get(self, request_id: str) -> Generation | None:
        """Return the row of an id."""
        ...

    async def note_source(
        self, request_id: str, fal_url: str, facts: ClipFacts, content_type: str
    ) -> object:
        """Fix a clip's facts, the first time that its source is seen."""
        ...

    async def mark_stored(
        self,
        request_id: str,
        fal_url: str | None,
        facts: ClipFacts,
        sha256: str | None,
        at: datetime,
    ) -> bool:
        """Say that the bucket has the clip; False if the id means another clip by now."""
        ...

    async def note_missing(self, request_id: str) -> object:
        """Say that the bucket turned out not to have it."""
        ...

    async def note_refusal(self, request_id: str, fal_url: str, at: datetime) -> object:
        """Count a refusal by the source."""
        ...


class Superseded(Exception):
    """The id means another clip by now; never leaves this file."""


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
    ) -> None:
        """Take the parts it works with."""
        self._settings = settings
        self._bucket = bucket
        self._rows = rows
        self._disk = disk
        self._files = files
        self._spool_dir = spool_dir
        self._executor = executor
        self._clock = clock
        self._metrics = metrics
        self.on_stored: Callable[[ClipFacts], None] = _nobody_asked
        """Told of every clip that has just been stored."""
        self._commits = Commits(settings, bucket, clock, metrics)
        self._notes = Notes()
        self._kept: dict[str, Kept] = {}
        self._left_behind: list[str] = []
        self._wake = asyncio.Event()
        self._attempts: set[asyncio.Task[bool]] = set()

    # -- what a fill tells ---

    async def seen(self, _flight: Flight, source: Source, facts: ClipFacts) -> Upload | None:
        """Fix the facts beside the reply, and begin the upload of a clip that is not ours yet."""
        if not isinstance(source, UpstreamSource):
            return None
        self._notes.add(
            facts.request_id,
            lambda: self._rows.note_source(facts.request_id, source.url, facts, CLIP_CONTENT_TYPE),
        )
        path = self._spool_dir / f"{keys.spool_name(facts.request_id, source.name)}.part"
        return self._bucket.upload(new_object(facts, source.row.prompt_hash), path)

    def abandon(self, upload: Upload) -> None:
        """Abort the upload of a clip that turned out to be none, without anyone waiting for it."""
        self._commits.abandon(upload)

    async def refused(self, source: Source, error: FirstviewError) -> None:
        """Let the catalog count what the source or the bucket does not have."""
        if isinstance(source, UpstreamSource) and isinstance(error, SourceRefused):
            request_id, url, now = source.row.request_id, source.url, self._clock.now()
            self._notes.add(request_id, lambda: self._rows.note_refusal(request_id, url, now))
        elif isinstance(source, BucketSource) and isinstance(error, ObjectMissing):
            row = source.row
            if row is not None and row.status is Status.STORED:
                self._metrics.bucket_missing.inc()
                self._notes.add(row.request_id, lambda: self._rows.note_missing(row.request_id))

    def adopted(self, row: Generation | None, facts: ClipFacts) -> None:
        """A local bucket has a clip: let the catalog know it, if it does not."""
        if row is None or row.status is not Status.STORED or row.etag is None:
            self._note_stored(facts, None)

    def _note_stored(self, facts: ClipFacts, sha256: str | None) -> None:
        now = self._clock.now()
        self._notes.add(
            facts.request_id,
            lambda: self._rows.mark_stored(facts.request_id, None, facts, sha256, now),
        )

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
        await self._write(kept, durable=False)
        attempt = asyncio.create_task(self._attempt(kept), name=f"store {kept.facts.request_id}")
        self._attempts.add(attempt)
        attempt.add_done_callback(self._attempts.discard)

    async def _cache(self, filled: Filled, file: OpenFile) -> None:
        """A clip that came from the bucket: nothing to commit, only to keep near."""
        if await self._place(filled.spool.path, file, filled.reservation):
            self._note_stored(filled.facts, filled.sha256)

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

    async def disown(self, request_id: str) -> None:
        """The id was re-pointed: what is kept under it is of no use."""
        kept = self._kept.get(request_id)
        if kept is not None:
            kept.superseded = True
            await self._discard(kept)

    # -- until it is done ---

    async def load(self) -> None:
        """Find what an earlier process left: whole clips are kept, everything else removed."""
        spooled = await self._in_thread(lambda: find_kept(self._spool_dir))
        for found in spooled.whole:
            reservation = self._disk.claim(found.facts.length)
            self._kept[found.facts.request_id] = Kept.from_disk(found, reservation)
        self._left_behind = [*spooled.removed, *self._kept]
        if self._kept:
            log.info("clips are waiting for the bucket", count=len(self._kept))

    async def run(self) -> None:
        """Try again what is due, for ever; one success makes all the others due at once."""
        clearing = asyncio.create_task(self._commits.clear(self._left_behind))
        try:
            while True:
                await self._try_what_is_due()
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._until_due())
        finally:
            clearing.cancel()
            await asyncio.gather(clearing, return_exceptions=True)

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
                    await self._confirm(kept)
            await self._commits.commit(kept, lambda: self._confirm(kept))
            kept.committed = True
        await self._notes.settled(facts.request_id)
        meant = await self._rows.mark_stored(
            facts.request_id, kept.fal_url, facts, kept.sha256, self._clock.now()
        )
        if kept.superseded or not meant:
            raise Superseded
        self.on_stored(facts)
        await self._settle(kept)
        log.info("stored", request_id=facts.request_id, bytes=facts.length, sha256=kept.sha256)

    async def _confirm(self, kept: Kept) -> None:
        """Raise Superseded if the id means another clip by now, CatalogError if nobody knows."""
        row = await self._rows.get(kept.facts.request_id)
        if kept.superseded or (row is not None and not identity.same_clip(row, kept.facts)):
            raise Superseded

    async def _postpone(self, kept: Kept, error: FirstviewError) -> None:
        if kept.superseded:
            await self._drop(kept)
            return
        kept.tries += 1
        longest = self._settings.bucket_retry_max_wait
        wait = min(longest, self._settings.bucket_retry_wait * 2 ** min(kept.tries - 1, 20))
        wait = wait / 2 + self._clock.jitter(wait / 2)
        kept.due = self._clock.monotonic() + wait
        if kept.tries == 1:  # it may have to outlive more than this process from here on
            await self._write(kept, durable=True)
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
        self._metrics.store_failures.labels(error.slug).inc()
        log.error(
            "the bucket holds other bytes under this id; they were left untouched",
            request_id=kept.facts.request_id,
            key=keys.clip_key(kept.facts.request_id),
        )
        if kept.superseded:
            await self._drop(kept)
        else:
            await self._settle(kept, local=False)

    # -- the local copy's last place ---

    async def _settle(self, kept: Kept, *, local: bool = True) -> None:
        """Give the file its last place, with no moment in which the clip is in none."""
        if local and self._bucket.is_local:
            file = OpenFile(os.dup(kept.file.fd), kept.facts, "bucket")
            self._files.put(kept.facts.request_id, file)
        else:
            file = OpenFile(os.dup(kept.file.fd), kept.facts, "disk")
            await self._place(kept.path, file, kept.reservation)
        await self._drop(kept)

    async def _place(self, path: Path, file: OpenFile, reservation: Reservation) -> bool:
        """Move a file into the disk cache; if that is impossible, it is not kept at all."""
        request_id = file.facts.request_id
        try:
            await self._disk.adopt(path, file.facts, reservation)
        except OSError as error:
            log.warning("the disk cache failed", request_id=request_id, error=str(error))
            reservation.release()
            file.release()
            await self._in_thread(lambda: path.unlink(missing_ok=True))
            return False
        if request_id in self._disk:
            self._files.put(request_id, file)
        else:  # evicted already
            file.release()
        return True

    async def _drop(self, kept: Kept) -> None:
        """Forget a clip, and clear away what is left of it here and in the bucket."""
        upload, kept.upload = kept.upload, None
        if upload is not None:
            self._commits.abandon(upload)
        await self._discard(kept)
        if self._kept.get(kept.facts.request_id) is kept:
            del self._kept[kept.facts.request_id]

    async def _discard(self, kept: Kept) -> None:
        if kept.discarded:
            return
        kept.discarded = True
        kept.reservation.release()
        await self._in_thread(kept.delete)
        kept.file.release()  # and with it the lock: nobody makes a file of that name before this

    async def _write(self, kept: Kept, *, durable: bool) -> None:
        """Make the clip survive this process; a disk that refuses costs only that."""
        try:
            await self._in_thread(lambda: kept.write(durable=durable))
        except OSError as error:
            log.warning("a kept clip cannot outlive this process", error=str(error))

    async def close(self) -> None:
        """Let uploads and notes finish for a while; kept clips stay on disk for the next start."""
        timeout = self._settings.drain_timeout
        if self._attempts:
            _, late = await asyncio.wait(set(self._attempts), timeout=timeout)
            for attempt in late:
                attempt.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._notes.close(timeout)
        await self._commits.close([kept.upload for kept in self._kept.values() if kept.upload])
        for kept in self._kept.values():
            kept.file.release()
        self._kept.clear()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _nobody_asked(_facts: ClipFacts) -> None:
    """Until somebody wants to hear."""
