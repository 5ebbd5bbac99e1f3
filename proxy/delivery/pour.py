"""Pouring: the bytes of one clip from its source into its spool, up to the proof that they are it.

Belongs here: announcing, copying, resuming and verifying. Must not know: who claimed the clip, what
becomes of it afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

from proxy.clock import Clock
from proxy.delivery.behind import Behind
from proxy.delivery.body import Body
from proxy.delivery.flights import Flight
from proxy.delivery.owner import Owner
from proxy.delivery.pace import Pace
from proxy.delivery.patience import Patience
from proxy.delivery.spool import Spool
from proxy.errors import (
    BucketError,
    CorruptClip,
    DiskExhausted,
    FirstviewError,
    NotAClip,
    SourceUnavailable,
)
from proxy.records import ClipFacts
from proxy.settings import Settings
from proxy.storage.bucket import Upload
from proxy.storage.disk_cache import DiskCache, Reservation
from proxy.telemetry.metrics import Metrics

_WRITES_AT_ONCE = 8
"""As many as there are disk threads. More would only queue there, and every clip that is about to
begin would wait behind the chunks of all that have begun: of 200 at once, half began too late."""

_LARGEST = 512 * 1024
"""Bytes of a buffer: with 1 MiB a clip cost as much, with 256 KiB more hops to a thread."""
_SMALLEST = 64 * 1024
_ALL_BUFFERS = 32 * 1024 * 1024
"""Bytes that the buffers of all fills have together, about: many fills have smaller ones each."""

_KEPT_PAIRS = 8
"""Pairs of the largest buffers that are kept for the next fill: new memory costs a fault a page."""


class Pouring:
    """Pours; what all fills of this process share."""

    def __init__(
        self,
        settings: Settings,
        *,
        disk: DiskCache,
        owner: Owner,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Take the limits."""
        self._settings = settings
        self._disk = disk
        self._owner = owner
        self._clock = clock
        self._metrics = metrics
        self._pace = Pace(settings.mirror_bandwidth, clock)
        self._writing = asyncio.Semaphore(_WRITES_AT_ONCE)
        self._copying = 0
        self._used: list[tuple[memoryview, memoryview]] = []

    async def pour(
        self,
        flight: Flight,
        body: Body,
        spool: Spool,
        reservation: Reservation,
        *,
        facts: ClipFacts | None,
        unowned: contextlib.AsyncExitStack,
    ) -> Upload | None:
        """Bring the whole clip into the spool, verified; return the upload that runs beside it.

        `facts` are what another process has told viewers already; `unowned` is told how to abandon
        the upload. Raises what makes it impossible.
        """
        upload = None
        if body.total is not None:
            facts = facts or body.facts(body.total)
            upload = await self._land(flight, body, spool, facts, unowned)
        await self._read_all(flight, body, spool, upload, reservation)
        if body.total is None:
            facts = body.facts(spool.mark.written)
            upload = await self._land(flight, body, spool, facts, unowned)
        await _verify(body, spool)
        return upload

    async def _land(
        self,
        flight: Flight,
        body: Body,
        spool: Spool,
        facts: ClipFacts,
        unowned: contextlib.AsyncExitStack,
    ) -> Upload | None:
        """Announce the clip: from here on viewers are being answered."""
        spool.announce(facts.length)
        if body.total is not None and spool.mark.written == 0:
            spool.describe(facts, body.head)
            spool.lead(body.first(_SMALLEST))
        flight.land(facts)
        await asyncio.sleep(0)  # whoever waits sends what there is before any of it is moved
        upload = await self._owner.seen(flight, body.source, facts)
        if upload is not None:
            unowned.callback(self._owner.abandon, upload)
        return upload

    async def _read_all(
        self,
        flight: Flight,
        body: Body,
        spool: Spool,
        upload: Upload | None,
        reservation: Reservation,
    ) -> None:
        """Read the source to its end, however often it breaks, and whoever had begun to read it."""
        patience = Patience(self._settings, self._clock)
        if not body.is_open:
            if spool.mark.written == body.total:
                return
            ended = SourceUnavailable("the process that was fetching the clip has ended")
            patience.progress(spool.mark.written)
            await self._resume(flight, body, spool, patience, ended)
        while True:
            try:
                await self._copy(flight, body, spool, upload, reservation)
            except FirstviewError as error:
                if not error.retryable or body.total is None:
                    raise
                patience.progress(spool.mark.written)
                await self._resume(flight, body, spool, patience, error)
            else:
                return

    async def _copy(
        self,
        flight: Flight,
        body: Body,
        spool: Spool,
        upload: Upload | None,
        reservation: Reservation,
    ) -> None:
        """Move bytes until the body's proper end; raises SourceUnavailable if that is too soon."""
        received = spool.mark.written
        async with self._buffers() as buffers, Behind() as writing:
            room = _SMALLEST  # the first bytes go out before many have come
            for buffer in itertools.cycle(buffers):
                await body.offer(buffer[:room])
                await writing.done()  # what comes meanwhile comes along
                chunk = body.take(buffer)
                if not chunk:
                    break
                received, room = received + len(chunk), _LARGEST
                await self._make_room(reservation, received)
                writing.start(self._keep(flight, body, spool, upload, chunk))
        if body.total is not None and spool.mark.written < body.total:
            msg = f"the source ended after {spool.mark.written} of {body.total} bytes"
            raise SourceUnavailable(msg)

    async def _make_room(self, reservation: Reservation, size: int) -> None:
        if size > self._settings.max_clip_bytes:
            msg = "the clip is larger than FIRSTVIEW_MAX_CLIP_BYTES"
            raise NotAClip(msg)
        if size > reservation.size and not await self._disk.grow(reservation, size):
            raise DiskExhausted

    async def _keep(
        self, flight: Flight, body: Body, spool: Spool, upload: Upload | None, chunk: memoryview
    ) -> None:
        """Write what has come, let viewers and the bucket have it, and keep the mirrors' pace."""
        async with self._writing:
            await spool.append(chunk)
        self._metrics.filled_bytes.labels(body.source.tier).inc(len(chunk))
        flight.account.bytes += len(chunk)
        if upload is not None:
            with contextlib.suppress(BucketError):  # what this cannot send, commit does
                await upload.advance(spool.mark.written)
        await self._pace.spend(flight, len(chunk))

    @contextlib.asynccontextmanager
    async def _buffers(self) -> AsyncIterator[tuple[memoryview, memoryview]]:
        """Two buffers: one is filled while the other is written."""
        self._copying += 1
        try:
            size = max(_SMALLEST, min(_LARGEST, _ALL_BUFFERS // (2 * self._copying)))
            pair = self._used.pop() if self._used and size == _LARGEST else _new_pair(size)
            yield pair
            # Not after an error: the source may still have one of them in its hands.
            if size == _LARGEST and len(self._used) < _KEPT_PAIRS:
                self._used.append(pair)
        finally:
            self._copying -= 1

    async def _resume(
        self,
        flight: Flight,
        body: Body,
        spool: Spool,
        patience: Patience,
        error: FirstviewError,
    ) -> None:
        """Continue a broken body from the watermark, or raise what makes that impossible."""
        await body.close()
        while True:
            self._metrics.resumes.labels(body.source.tier).inc()
            flight.account.resumed(error)
            await patience.wait(error)
            try:
                await body.reopen(spool, patience.left)
            except FirstviewError as again:
                if not again.retryable:
                    raise
                error = again
            else:
                return


def _new_pair(size: int) -> tuple[memoryview, memoryview]:
    return memoryview(bytearray(size)), memoryview(bytearray(size))


async def _verify(body: Body, spool: Spool) -> None:
    """Compare with everything that the source said, then let the last byte go."""
    wrong = body.md5 is not None and spool.md5 != body.md5
    if body.sha256 is not None:
        wrong = wrong or body.sha256 != (await spool.digest()).hexdigest()
    if wrong:
        msg = f"the digest that the {body.source.tier} gave is not that of its bytes"
        error = CorruptClip(msg)
        spool.fail(error)
        raise error
    spool.verify()
