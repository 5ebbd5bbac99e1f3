"""Ownership: whose a clip is from "verified" on, and what the corridor asks and tells of that.

Belongs here: taking clips over from fills, and answering for them until they are stored. Must not
know: viewers, how and when a clip is stored (`storing.py`), what ended processes have left
(`aftermath.py`), and where a clip came from beyond its URL.

A clip is kept, and near, from the moment that it is verified. Everything after that goes on beside
the viewers and beside the fills, so that a bucket which hangs takes no fill's place.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from cachetools import LRUCache

from proxy.clock import Clock
from proxy.delivery.aftermath import Aftermath
from proxy.delivery.commit import Commits, new_object
from proxy.delivery.flights import Flight
from proxy.delivery.kept import Kept
from proxy.delivery.ledger import Ledger, Rows
from proxy.delivery.leftovers import forget_clip
from proxy.delivery.owner import Filled
from proxy.delivery.shelf import Shelf
from proxy.delivery.sources import BucketSource, Source, UpstreamSource
from proxy.delivery.storing import Storing
from proxy.errors import CorruptClip, FirstviewError
from proxy.records import ClipFacts, Generation, Status
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import Bucket, Upload
from proxy.storage.disk_cache import DiskCache
from proxy.storage.open_files import OpenFile, OpenFiles
from proxy.telemetry.metrics import Metrics

_DISTRUSTED = 1024
_FOR_NOTES = 1.0
"""Seconds."""


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
        behind: Executor | None = None,
        keeps_copies: bool = True,
        commits: Callable[[Settings, Bucket, Clock, Metrics], Commits] = Commits,
    ) -> None:
        """Take the parts it works with; `behind` has threads for what nobody waits for.

        `commits` makes who writes clips into the bucket.
        """
        self._bucket = bucket
        self._spool_dir = spool_dir
        self._clock = clock
        self._commits = commits(settings, bucket, clock, metrics)
        self._ledger = Ledger(rows, clock, metrics)
        self._shelf = Shelf(disk, files, executor, behind or executor, keeps=keeps_copies)
        self.storing = Storing(
            settings,
            commits=self._commits,
            ledger=self._ledger,
            shelf=self._shelf,
            is_local=bucket.is_local,
            clock=clock,
            metrics=metrics,
        )
        self._kept = self.storing.clips
        self._aftermath = Aftermath(
            settings,
            storing=self.storing,
            commits=self._commits,
            ledger=self._ledger,
            shelf=self._shelf,
            disk=disk,
            spool_dir=spool_dir,
        )
        self.distrusted: LRUCache[str, bool] = LRUCache(_DISTRUSTED)
        """Ids whose object in the bucket was read and is not what it says it is."""

    # -- what a fill tells ---

    async def seen(self, flight: Flight, source: Source, facts: ClipFacts) -> Upload | None:
        """Fix the facts beside the reply, and begin the upload of a clip that is not ours yet."""
        if not isinstance(source, UpstreamSource):
            return None
        self._ledger.source_seen(source, facts, asked=not flight.by_job)
        path = keys.spool_path(self._spool_dir, facts.request_id, source.name)
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
        source, account = filled.source, filled.flight.account
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
            head=filled.head,
            upload=filled.upload,
            busy=True,
            account=account,
        )
        account.passed_on()
        self._kept[kept.facts.request_id] = kept
        if kept.sha256 is not None:
            await self._shelf.write(kept, durable=False)
        self.storing.begin(kept)

    async def _cache(self, filled: Filled, file: OpenFile) -> None:
        """A clip that came from the bucket: nothing to commit, only to keep near."""
        try:
            sha256 = filled.sha256 or (await filled.spool.digest()).hexdigest()
        except FirstviewError:  # the disk cannot read what it was given
            filled.reservation.release()
            await filled.spool.remove()
            file.release()
            raise
        if await self._shelf.place(filled.spool.path, file, sha256, filled.reservation):
            self._ledger.in_bucket(filled.source.row, filled.facts, sha256)

    # -- what viewers ask ---

    def kept(self, request_id: str) -> OpenFile | None:
        """A whole clip that its bucket does not have yet."""
        kept = self._kept.get(request_id)
        return None if kept is None or kept.discarded else kept.file

    def __len__(self) -> int:
        """How many clips wait for the bucket or the catalog."""
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes of all clips that wait."""
        return sum(kept.facts.length for kept in self._kept.values())

    @property
    def longest_wait(self) -> float:
        """Seconds that the clip has waited which waits for longest; 0 if there is none."""
        now = time.monotonic()
        return max((now - kept.since for kept in self._kept.values()), default=0.0)

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

    async def disown(self, request_id: str) -> None:
        """The id was re-pointed: what is kept under it is of no use."""
        kept = self._kept.get(request_id)
        if kept is not None:
            kept.superseded = True
            await self._shelf.discard(kept)
        await self._shelf.in_thread(lambda: forget_clip(self._spool_dir, request_id))

    # -- until it is done ---

    async def load(self) -> None:
        """Find what an earlier process left, before anything is filled here."""
        await self._aftermath.load()

    async def run(self) -> None:
        """See to what is kept and to what was left behind, for ever."""
        aftermath = asyncio.create_task(self._aftermath.run())
        try:
            await self.storing.run()
        finally:
            aftermath.cancel()
            await asyncio.gather(aftermath, return_exceptions=True)

    async def close(self, timeout: float) -> None:
        """Let uploads and notes finish for `timeout` seconds; kept clips stay on disk.

        Notes get a second if uploads have taken all of that: the catalog may well be there.
        """
        began = self._clock.monotonic()
        await self.storing.close(timeout)
        left = timeout - (self._clock.monotonic() - began)
        await self._ledger.close(max(min(timeout, _FOR_NOTES), left))
        await self._commits.close([kept.upload for kept in self._kept.values() if kept.upload])
        for kept in self._kept.values():
            kept.file.release()
        self._kept.clear()
