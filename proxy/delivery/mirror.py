"""Mirrors: bringing a clip into the bucket because a job asks for it, with no viewer.

Belongs here: the same places and the same fill as for a viewer, and waiting until the clip is
stored. Must not know: jobs, leases, when anything is tried again.

    stored already ─▶ done
    in flight, kept ─▶ wait for it
    in the bucket ─▶ let the catalog know
    on this machine ─▶ a fill from that copy: the bucket has lost it
    nowhere ─▶ a fill without a viewer, which viewers may join ─▶ wait until it is stored
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

import structlog

from proxy.clock import Clock
from proxy.delivery import identity
from proxy.delivery.candidates import Candidates
from proxy.delivery.copies import CopySource
from proxy.delivery.fill import Fills
from proxy.delivery.flights import Flight, Flights
from proxy.delivery.ledger import Rows
from proxy.delivery.near import Near
from proxy.delivery.own import Ownership
from proxy.delivery.sources import UpstreamLike
from proxy.delivery.whereabouts import LOOKS
from proxy.delivery.whole import is_clip
from proxy.errors import (
    ClipFailed,
    ClipGone,
    ClipNotReady,
    DiskExhausted,
    ObjectConflict,
    ObjectMissing,
    SourceChanged,
    StillKept,
    UnknownClip,
)
from proxy.records import ClipFacts, Generation, Status
from proxy.storage import keys
from proxy.storage.bucket import Bucket
from proxy.storage.open_files import OpenFile

_WAITS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds between two looks whether another process has stored a clip."""

log = structlog.get_logger()


class Mirrors:
    """Brings clips into the bucket. Cancelling a call never stops a fill: others may watch it."""

    def __init__(
        self,
        *,
        bucket: Bucket,
        rows: Rows,
        near: Near,
        candidates: Candidates,
        flights: Flights,
        fills: Fills,
        ownership: Ownership,
        upstream: UpstreamLike,
        executor: Executor,
        clock: Clock,
    ) -> None:
        """Take the corridor's parts."""
        self._bucket = bucket
        self._rows = rows
        self._near = near
        self._candidates = candidates
        self._flights = flights
        self._fills = fills
        self._ownership = ownership
        self._upstream = upstream
        self._executor = executor
        self._clock = clock
        self.on_stored: Callable[[ClipFacts], None] = ownership.storing.on_stored
        """Told of clips that were found in the bucket."""

    async def mirror(self, request_id: str) -> None:
        """Return when the clip is stored.

        Raises UnknownClip, ClipFailed, ClipGone (there is nothing to store), ClipNotReady (no URL
        yet), StillKept (safe on the local disk, but the bucket or the catalog is away),
        ObjectConflict (the key holds bytes that are not ours), BucketError, CatalogError,
        Overloaded, DiskExhausted, and whatever the source's errors are.
        """
        flight = self._flights.get(request_id)
        if flight is None and request_id not in self._ownership:
            found = await self._look(request_id)
            if found is None:
                return
            flight = self._board(*found)
        if flight is not None:
            await self._landed(flight)
            if flight.followed and request_id not in self._ownership:
                await self._stored_elsewhere(request_id)
        await self._stored(request_id)

    async def _look(self, request_id: str) -> tuple[Generation, OpenFile | None] | None:
        """What the id means and the copy of it that is here, if any; None if it is stored.

        A row that was read before its id was re-pointed must not start a fill, because viewers
        would join it; so whoever was overtaken looks again.
        """
        for _ in range(LOOKS):
            repointed = self._flights.repointed
            row = _mirrorable(await self._rows.get(request_id))
            if row.status is Status.STORED or await self._is_in_bucket(row):
                return None
            copy = await self._copy(row)
            if repointed == self._flights.repointed:
                return row, copy
            if copy is not None:
                copy.release()
        raise SourceChanged("ids are being pointed elsewhere faster than this one can be looked up")

    async def _copy(self, row: Generation) -> OpenFile | None:
        """The whole clip if it is on this machine, for a bucket that has lost it.

        A file of a local bucket is no copy: it is the very thing that is missing or damaged.
        """
        if self._bucket.is_local:
            return None
        file = await self._near.open(row.request_id, row)
        if file is not None and (row.fal_url is None or not identity.same_clip(row, file.facts)):
            file.release()
            return None
        return file

    def _board(self, row: Generation, copy: OpenFile | None) -> Flight | None:
        """Join or start the clip's fill, from the copy if there is one.

        Returns None if the clip has become whole here meanwhile. Nothing is awaited between the
        last look and the start, as in `Locator.find`.
        """
        with contextlib.ExitStack() as unused:
            if copy is not None:
                unused.callback(copy.release)
            if row.request_id in self._ownership:
                return None
            sources = self._candidates.of(row.request_id, row, None)
            if copy is not None and row.fal_url is not None:
                source = CopySource(
                    self._upstream, row, row.fal_url, file=copy, executor=self._executor
                )
                sources = (source, *sources)
            flight, joined = self._flights.join_or_start(
                row.request_id, sources, self._fills.run, by_range=False, by_job=True
            )
            if not joined:
                flight.copy = copy
                unused.pop_all()
            return flight

    @staticmethod
    async def _landed(flight: Flight) -> None:
        """Wait until a fill has ended, in whatever way; raise what it failed with."""
        if flight.task is not None:
            await asyncio.wait({flight.task})
        if isinstance(flight.error, ObjectMissing):
            raise ClipGone
        if flight.error is not None:
            raise flight.error
        if flight.superseded:
            raise SourceChanged("the id means another clip by now")
        if flight.spool is None:
            raise DiskExhausted

    async def _stored(self, request_id: str) -> None:
        """Wait until a whole clip is stored, or until that has failed once."""
        failure = await self._ownership.outcome(request_id)
        if isinstance(failure, ObjectConflict):
            raise failure
        if failure is not None:
            raise StillKept(f"kept on the local disk: {failure.detail}") from failure
        row = await self._rows.get(request_id)
        if row is None or row.status is not Status.STORED:
            raise SourceChanged("the clip was filled, but it is not what its id means by now")

    async def _stored_elsewhere(self, request_id: str) -> None:
        """Wait a while until the process that filled the clip has stored it. Raises StillKept."""
        for wait in _WAITS:
            row = await self._rows.get(request_id)
            if row is None or row.status is not Status.AVAILABLE:
                return
            await asyncio.sleep(wait)
        raise StillKept("another process of this machine is storing the clip")

    # -- what the bucket has already ---

    async def _is_in_bucket(self, row: Generation) -> bool:
        """Look for the clip in the bucket before it is fetched, and let the catalog know.

        A process may have died between its commit and the catalog's row; or somebody has brought
        the clip there by other means. Raises BucketError.
        """
        info = await self._bucket.head(keys.clip_key(row.request_id))
        if info is None or info.altered:
            return False
        facts = identity.facts_from_info(row.request_id, row, info)
        distrusted = row.request_id in self._ownership.distrusted
        if distrusted or not self._is_meant(row, facts) or not await is_clip(self._bucket, info):
            return False
        sha256, now = identity.digest_in(info.metadata, keys.META_SHA256), self._clock.now()
        if not await self._rows.mark_stored(row.request_id, row.fal_url, facts, sha256, now):
            return False
        self.on_stored(facts)
        log.info("found in the bucket", request_id=row.request_id, bytes=info.size)
        return True

    @staticmethod
    def _is_meant(row: Generation, facts: ClipFacts) -> bool:
        known = row.content_length
        return known in {None, facts.length} and identity.same_clip(row, facts)


def _mirrorable(row: Generation | None) -> Generation:
    """Return the row, or raise what keeps it from being mirrored, now or for ever."""
    if row is None:
        raise UnknownClip
    if row.status is Status.FAILED:
        raise ClipFailed
    if row.status is Status.LOST:
        raise ClipGone
    if row.status is Status.PENDING:
        raise ClipNotReady
    return row
