"""The fill: one clip from its source into the spool, whoever is watching or nobody.

Belongs here: opening, checking, pouring, resuming and verifying one clip. Must not know: HTTP
replies, viewers, the catalog's or the bucket's implementation.

    open ─▶ check ─▶ reserve ─▶ pour ⇄ resume ─▶ verify ─▶ hand over
      │        │         │         │                │
      └────────┴── fail: a proper error            └── fail: viewers are reset, nothing is kept
                         └── no room: streamed through instead
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import structlog

from proxy.clock import Clock
from proxy.delivery.body import Body
from proxy.delivery.flights import Flight
from proxy.delivery.owner import Filled, Owner
from proxy.delivery.pace import Pace
from proxy.delivery.patience import Patience
from proxy.delivery.spool import Spool
from proxy.errors import (
    BucketError,
    CorruptClip,
    DiskExhausted,
    FirstviewError,
    NotAClip,
    ObjectMissing,
    Overloaded,
    SourceUnavailable,
)
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import Upload
from proxy.storage.disk_cache import DiskCache, Reservation
from proxy.telemetry.metrics import Metrics

UNKNOWN_LENGTH = 64 * 1024 * 1024
"""Bytes reserved at first for a clip whose source does not say how long it is."""


_WRITES_AT_ONCE = 8
"""As many as there are disk threads. More would only queue there, and every clip that is about to
begin would wait behind the chunks of all that have begun: of 200 at once, half began too late."""

log = structlog.get_logger()


class Fills:
    """Runs fills; everything that all of them share."""

    def __init__(
        self,
        settings: Settings,
        *,
        spool_dir: Path,
        disk: DiskCache,
        owner: Owner,
        executor: Executor,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Take the limits and the parts that a fill works with."""
        self._settings = settings
        self._spool_dir = spool_dir
        self._disk = disk
        self._owner = owner
        self._executor = executor
        self._clock = clock
        self._metrics = metrics
        self._pace = Pace(settings.mirror_bandwidth, clock)
        self._range_bytes = 0
        self._writing = asyncio.Semaphore(_WRITES_AT_ONCE)

    async def run(self, flight: Flight) -> None:
        """Fill one flight to its end; errors go to the flight, only cancellation is raised."""
        try:
            await self._run(flight)
        except asyncio.CancelledError:
            flight.fail(SourceUnavailable("the process is stopping"))
            raise
        except DiskExhausted as error:
            self._metrics.passthrough.labels("disk").inc()
            log.warning("the disk is full, streaming through", request_id=flight.request_id)
            flight.fail(error if flight.is_ready else Overloaded("there is no room for the clip"))
        except FirstviewError as error:
            tier = "none" if flight.source is None else flight.source.tier
            self._metrics.fills.labels(tier, error.slug).inc()
            if not isinstance(error, ObjectMissing):
                log.warning(
                    "fill failed",
                    request_id=flight.request_id,
                    error=error.slug,
                    detail=error.detail,
                )
            if isinstance(error, CorruptClip) and flight.source is not None:
                await self._owner.refused(flight.source, error)
            flight.fail(error)
        except Exception:
            log.exception("fill crashed", request_id=flight.request_id)
            flight.fail(FirstviewError())

    async def _run(self, flight: Flight) -> None:
        body = await self._open_first(flight)
        try:
            with self._counting_range_bytes(flight, body.total or 0) as admitted:
                reservation = await self._reserve(body) if admitted else None
                if reservation is None:
                    self._stream_through(flight, body, "disk" if admitted else "range_budget")
                else:
                    await self._fill(flight, body, reservation)
        finally:
            await body.close()

    async def _fill(self, flight: Flight, body: Body, reservation: Reservation) -> None:
        source = body.source
        async with contextlib.AsyncExitStack() as unowned:
            unowned.callback(reservation.release)
            path = self._spool_dir / f"{keys.spool_name(flight.request_id, source.name)}.part"
            try:
                spool = await Spool.create(path, self._executor)
            except DiskExhausted:
                self._stream_through(flight, body, "disk")
                return
            unowned.push_async_callback(spool.remove)
            flight.spool = spool
            upload = await self._pour(flight, body, reservation, unowned)
            await body.close()
            facts = flight.facts
            if facts is None or flight.superseded:
                return
            unowned.pop_all()  # the file, its bytes of the budget and its upload change hands here
            await self._owner.take(
                Filled(
                    flight=flight,
                    source=source,
                    facts=facts,
                    spool=spool,
                    sha256=spool.digest().hexdigest(),
                    reservation=reservation,
                    upload=upload,
                )
            )
            self._metrics.fills.labels(source.tier, "ok").inc()

    async def _reserve(self, body: Body) -> Reservation | None:
        return await self._disk.reserve(UNKNOWN_LENGTH if body.total is None else body.total)

    # -- before the first byte ---

    async def _open_first(self, flight: Flight) -> Body:
        """Open the first source that has the clip; fall through to the next only from here.

        When none has it, what may pass by itself is what the viewer hears of, so that an outage
        of the bucket never looks like a clip that is gone.
        """
        errors: list[FirstviewError] = []
        for source in flight.sources:
            try:
                body = await Body.open(source, self._settings.max_clip_bytes)
            except FirstviewError as error:
                await self._owner.refused(source, error)
                errors.append(error)
            else:
                flight.source, flight.validator = source, body.validator
                return body
        known = [error for error in errors if not isinstance(error, ObjectMissing)] or errors
        raise next((error for error in known if error.retryable), known[0])

    def _stream_through(self, flight: Flight, body: Body, reason: str) -> None:
        """No room: each viewer reads the source itself; counted, never an error of theirs."""
        if body.total is None:
            msg = "there is no room for a clip of unknown length; try again shortly"
            raise Overloaded(msg)
        self._metrics.passthrough.labels(reason).inc()
        log.warning("streaming through", request_id=flight.request_id, reason=reason)
        flight.land(body.facts(body.total))

    @contextlib.contextmanager
    def _counting_range_bytes(self, flight: Flight, size: int) -> Iterator[bool]:
        counted = size if flight.by_range else 0
        admitted = self._range_bytes + counted <= self._settings.range_fill_bytes
        self._range_bytes += counted if admitted else 0
        try:
            yield admitted
        finally:
            self._range_bytes -= counted if admitted else 0

    # -- the bytes ---

    async def _pour(
        self,
        flight: Flight,
        body: Body,
        reservation: Reservation,
        unowned: contextlib.AsyncExitStack,
    ) -> Upload | None:
        spool, upload = _spool_of(flight), None
        if body.md5 is not None:
            spool.expect_md5()
        if body.total is not None:
            upload = await self._land(flight, body, body.total, unowned)
        patience = Patience(self._settings, self._clock)
        while True:
            try:
                await self._copy(flight, body, spool, upload, reservation)
                break
            except FirstviewError as error:
                if not error.retryable or body.total is None:
                    raise
                patience.progress(spool.mark.written)
                await self._resume(flight, body, patience, error)
        if body.total is None:
            upload = await self._land(flight, body, spool.mark.written, unowned)
        _verify(body, spool)
        return upload

    async def _land(
        self, flight: Flight, body: Body, length: int, unowned: contextlib.AsyncExitStack
    ) -> Upload | None:
        """Announce the clip: from here on viewers are being answered."""
        facts = body.facts(length)
        _spool_of(flight).announce(length)
        upload = await self._owner.seen(flight, body.source, facts)
        if upload is not None:
            unowned.callback(self._owner.abandon, upload)
        flight.land(facts)
        return upload

    async def _copy(
        self,
        flight: Flight,
        body: Body,
        spool: Spool,
        upload: Upload | None,
        reservation: Reservation,
    ) -> None:
        """Move bytes until the body's proper end; raises SourceUnavailable if that is too soon."""
        while chunk := await body.read():
            written = spool.mark.written + len(chunk)
            if written > self._settings.max_clip_bytes:
                msg = "the clip is larger than FIRSTVIEW_MAX_CLIP_BYTES"
                raise NotAClip(msg)
            if written > reservation.size and not await self._disk.grow(reservation, written):
                raise DiskExhausted
            async with self._writing:
                await spool.append(chunk)
            self._metrics.filled_bytes.labels(body.source.tier).inc(len(chunk))
            if upload is not None:
                with contextlib.suppress(BucketError):  # what this cannot send, commit does
                    await upload.advance(written)
            await self._pace.spend(flight, len(chunk))
        if body.total is not None and spool.mark.written < body.total:
            msg = f"the source ended after {spool.mark.written} of {body.total} bytes"
            raise SourceUnavailable(msg)

    async def _resume(
        self, flight: Flight, body: Body, patience: Patience, error: FirstviewError
    ) -> None:
        """Continue a broken body from the watermark, or raise what makes that impossible."""
        await body.close()
        spool = _spool_of(flight)
        while True:
            self._metrics.resumes.labels(body.source.tier).inc()
            log.info(
                "resuming",
                request_id=flight.request_id,
                at=spool.mark.written,
                error=error.slug,
                detail=error.detail,
            )
            await patience.wait(error)
            try:
                await body.reopen(spool, patience.left)
            except FirstviewError as again:
                if not again.retryable:
                    raise
                error = again
            else:
                return


def _spool_of(flight: Flight) -> Spool:
    if flight.spool is None:
        msg = "a fill is pouring without a spool"
        raise AssertionError(msg)
    return flight.spool


def _verify(body: Body, spool: Spool) -> None:
    """Compare with everything that the source said, then let the last byte go."""
    wrong_md5 = body.md5 is not None and spool.md5 != body.md5
    if wrong_md5 or body.sha256 not in {None, spool.digest().hexdigest()}:
        msg = f"the digest that the {body.source.tier} gave is not that of its bytes"
        error = CorruptClip(msg)
        spool.fail(error)
        raise error
    spool.verify()
