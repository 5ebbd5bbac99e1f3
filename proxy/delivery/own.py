"""Ownership: what happens to a clip between "verified" and "stored", however long that takes.

Belongs here: commit to the bucket, then the catalog's row, then the local copy's last place, in
that order, again and again until it is done; also after a restart. Must not know: viewers, and
where the clip came from beyond its URL.

    verified ─▶ kept on disk ─▶ committed ─▶ row says stored ─▶ cached | linked into the bucket
                     ▲               │              │
                     └── backoff ────┴──────────────┘   the bucket or the catalog is down
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import structlog

from proxy.clock import Clock
from proxy.delivery import identity
from proxy.delivery.fill import Filled
from proxy.delivery.flights import Flight
from proxy.delivery.kept import Kept, find_kept
from proxy.delivery.sources import BucketSource, Source, UpstreamSource
from proxy.errors import (
    FirstviewError,
    ObjectConflict,
    ObjectMissing,
    SourceRefused,
)
from proxy.records import CLIP_CONTENT_TYPE, ClipFacts, Generation, Status
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import Bucket, NewObject, Upload
from proxy.storage.disk_cache import DiskCache
from proxy.storage.facts_file import write_facts
from proxy.storage.open_files import OpenFile, OpenFiles
from proxy.telemetry.metrics import Metrics

_RETRIES_AT_ONCE = 4

log = structlog.get_logger()


class Rows(Protocol):
    """What ownership tells the catalog; `proxy.catalog.generations.Generations` keeps it."""

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
        self._kept: dict[str, Kept] = {}
        self._wake = asyncio.Event()
        self._notes: set[asyncio.Task[None]] = set()

    # -- what a fill tells ---

    async def seen(self, _flight: Flight, source: Source, facts: ClipFacts) -> Upload | None:
        """Fix the facts beside the reply, and begin the upload of a clip that is not ours yet."""
        if not isinstance(source, UpstreamSource):
            return None
        self._note(self._rows.note_source(facts.request_id, source.url, facts, CLIP_CONTENT_TYPE))
        path = self._spool_dir / f"{keys.spool_name(facts.request_id, source.name)}.part"
        return self._bucket.upload(_new_object(facts, source.row.prompt_hash), path)

    async def refused(self, source: Source, error: FirstviewError) -> None:
        """Let the catalog count what the source or the bucket does not have."""
        if isinstance(source, UpstreamSource) and isinstance(error, SourceRefused):
            request_id = source.row.request_id
            self._note(self._rows.note_refusal(request_id, source.url, self._clock.now()))
        elif isinstance(source, BucketSource) and isinstance(error, ObjectMissing):
            row = source.row
            if row is not None and row.status is Status.STORED:
                self._metrics.bucket_missing.inc()
                self._note(self._rows.note_missing(row.request_id))

    def adopted(self, row: Generation | None, facts: ClipFacts) -> None:
        """A local bucket has a clip: let the catalog know it, if it does not."""
        if row is None or row.status is not Status.STORED or row.etag is None:
            now = self._clock.now()
            self._note(self._rows.mark_stored(facts.request_id, None, facts, None, now))

    async def take(self, filled: Filled) -> None:
        """Own a verified clip: returns when it is stored, or kept for later."""
        if not isinstance(filled.source, UpstreamSource):
            await self._cache(filled)
            return
        source = filled.source
        filled.spool.acquire()
        kept = Kept(
            facts=filled.facts,
            sha256=filled.sha256,
            fal_url=source.url,
            prompt_hash=source.row.prompt_hash,
            path=filled.spool.path,
            reservation=filled.reservation,
            file=OpenFile(os.dup(filled.spool.fd), filled.facts, "disk"),
            upload=filled.upload,
        )
        try:
            await self._in_thread(lambda: _write_kept(kept, durable=False))
            self._keep(kept)
            await self._attempt(kept)
        finally:
            filled.spool.release()

    async def _cache(self, filled: Filled) -> None:
        """A clip that came from the bucket: nothing to commit, only to keep near."""
        await self._disk.adopt(filled.spool.path, filled.facts, filled.reservation)
        file = OpenFile(os.dup(filled.spool.fd), filled.facts, "disk")
        self._files.put(filled.facts.request_id, file)
        self._note(
            self._rows.mark_stored(
                filled.facts.request_id, None, filled.facts, filled.sha256, self._clock.now()
            )
        )

    # -- what viewers ask ---

    def kept(self, request_id: str) -> OpenFile | None:
        """A whole clip that its bucket does not have yet."""
        kept = self._kept.get(request_id)
        return None if kept is None else kept.file

    def __len__(self) -> int:
        """How many clips wait for the bucket or the catalog."""
        return len(self._kept)

    async def disown(self, request_id: str) -> None:
        """The id was re-pointed: what is kept under it is of no use."""
        kept = self._kept.pop(request_id, None)
        if kept is not None:
            kept.superseded = True
            await self._discard(kept)

    # -- until it is done ---

    async def load(self) -> None:
        """Find what an earlier process left: whole clips are kept, everything else removed."""
        for found in await self._in_thread(lambda: find_kept(self._spool_dir)):
            reservation = self._disk.claim(found.facts.length)
            self._keep(Kept.from_disk(found, reservation))
        if self._kept:
            log.info("clips are waiting for the bucket", count=len(self._kept))
            self._wake.set()

    async def run(self) -> None:
        """Try again what is due, for ever; one success makes all the others due at once."""
        while True:
            due = [kept for kept in self._kept.values() if self._is_due(kept)]
            for start in range(0, len(due), _RETRIES_AT_ONCE):
                batch = due[start : start + _RETRIES_AT_ONCE]
                if any(await asyncio.gather(*(self._attempt(kept) for kept in batch))):
                    for kept in self._kept.values():
                        kept.due = 0.0
            self._wake.clear()
            waits = [
                kept.due - self._clock.monotonic() for kept in self._kept.values() if not kept.busy
            ]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.05, min(waits)) if waits else None)

    def _is_due(self, kept: Kept) -> bool:
        return not kept.busy and kept.due <= self._clock.monotonic()

    async def _attempt(self, kept: Kept) -> bool:
        kept.busy = True
        try:
            if not kept.committed:
                await self._commit(kept)
                kept.committed = True
            facts = kept.facts
            await self._rows.mark_stored(
                facts.request_id, kept.fal_url, facts, kept.sha256, self._clock.now()
            )
        except ObjectConflict as error:
            await self._give_up(kept, error)
            return False
        except FirstviewError as error:
            await self._postpone(kept, error)
            return False
        finally:
            kept.busy = False
        await self._finish(kept)
        return True

    async def _commit(self, kept: Kept) -> None:
        upload = kept.upload or self._bucket.upload(
            _new_object(kept.facts, kept.prompt_hash), kept.path
        )
        kept.upload = None
        try:
            try:
                await upload.commit(kept.sha256)
            except ObjectConflict:
                await upload.abort()
                upload = await self._replacement(kept)
                await upload.commit(kept.sha256)
        except BaseException:
            await upload.abort()
            raise
        self._metrics.stored.inc()
        self._metrics.stored_bytes.inc(kept.facts.length)

    async def _replacement(self, kept: Kept) -> Upload:
        """Replace only what we wrote ourselves for the id's former source; else ObjectConflict."""
        info = await self._bucket.head(keys.clip_key(kept.facts.request_id))
        theirs = None if info is None else info.metadata.get(keys.META_ETAG)
        if info is not None and (theirs is None or theirs == kept.facts.etag):
            raise ObjectConflict
        replaces = None if info is None else info.etag
        return self._bucket.upload(_new_object(kept.facts, kept.prompt_hash, replaces), kept.path)

    async def _postpone(self, kept: Kept, error: FirstviewError) -> None:
        kept.tries += 1
        longest = self._settings.bucket_retry_max_wait
        wait = min(longest, self._settings.bucket_retry_wait * 2 ** min(kept.tries - 1, 20))
        wait = wait / 2 + self._clock.jitter(wait / 2)
        kept.due = self._clock.monotonic() + wait
        if kept.tries == 1:  # it may have to outlive more than this process from here on
            await self._in_thread(lambda: _write_kept(kept, durable=True))
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
        """The key holds bytes that we did not write: they stay, ours go, and the log says so."""
        self._metrics.store_failures.labels(error.slug).inc()
        log.error(
            "the bucket holds other bytes under this id; they were left untouched",
            request_id=kept.facts.request_id,
            key=keys.clip_key(kept.facts.request_id),
        )
        self._kept.pop(kept.facts.request_id, None)
        await self._discard(kept)

    async def _finish(self, kept: Kept) -> None:
        """Stored: give the local copy its last place, with no moment between two copies."""
        request_id = kept.facts.request_id
        if kept.superseded:
            return
        if self._bucket.is_local:
            self._files.put(request_id, OpenFile(os.dup(kept.file.fd), kept.facts, "bucket"))
            kept.reservation.release()
        else:
            await self._disk.adopt(kept.path, kept.facts, kept.reservation)
            self._files.put(request_id, OpenFile(os.dup(kept.file.fd), kept.facts, "disk"))
        if self._kept.get(request_id) is kept:
            del self._kept[request_id]
        self.on_stored(kept.facts)
        await self._discard(kept)

    async def _discard(self, kept: Kept) -> None:
        if kept.discarded:
            return
        kept.discarded = True
        kept.reservation.release()
        kept.file.release()
        await self._in_thread(lambda: _delete_kept(kept.path))

    def _keep(self, kept: Kept) -> None:
        self._kept[kept.facts.request_id] = kept

    # -- beside the reply ---

    def _note(self, write: Coroutine[Any, Any, object]) -> None:
        """Write to the catalog without anyone waiting for it; the next fill repairs a lost note."""
        task = asyncio.create_task(self._write(write))
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    async def _write(self, write: Coroutine[Any, Any, object]) -> None:
        try:
            await write
        except FirstviewError as error:
            log.warning("the catalog missed a note", error=error.slug, detail=error.detail)

    async def close(self) -> None:
        """Finish the notes; kept clips stay on disk for the next process."""
        if self._notes:
            await asyncio.wait(set(self._notes), timeout=self._settings.drain_timeout)
        for kept in self._kept.values():
            if kept.upload is not None:
                await kept.upload.abort()
            kept.file.release()
        self._kept.clear()

    async def _in_thread(self, call: Any) -> Any:  # noqa: ANN401 - passes any result through
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _nobody_asked(_facts: ClipFacts) -> None:
    """Until somebody wants to hear."""


def _new_object(
    facts: ClipFacts, prompt_hash: str | None, replaces: str | None = None
) -> NewObject:
    return NewObject(
        key=keys.clip_key(facts.request_id),
        size=facts.length,
        content_type=CLIP_CONTENT_TYPE,
        metadata=identity.metadata_of(facts, prompt_hash),
        replaces=replaces,
    )


def _write_kept(kept: Kept, *, durable: bool) -> None:
    """Say beside the file what it is; `durable`: both survive a loss of power from here on."""
    if durable:
        os.fsync(kept.file.fd)
    write_facts(
        kept.path.with_suffix(".json"),
        kept.facts,
        sha256=kept.sha256,
        fal_url=kept.fal_url,
        prompt_hash=kept.prompt_hash,
        durable=durable,
    )


def _delete_kept(path: Path) -> None:
    path.with_suffix(".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
