"""The fill: one clip from its source into the spool, whoever is watching or nobody.

Belongs here: the order of a fill, what its failures mean, and what it does where there is no room.
Must not know: HTTP replies, viewers, the catalog's or the bucket's implementation.

    claim ─▶ open and check ─▶ reserve ─▶ pour ⇄ resume ─▶ verify ─▶ hand over
      │             │             │         │                │
      │             └── fail: a proper error                └── fail: viewers are reset,
      │                           └── no room: streamed through           nothing is kept
      └── another process has it: followed to its end, or taken over where it stopped
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial

from proxy.clock import Clock
from proxy.delivery.body import Body
from proxy.delivery.claims import Claim, Claims
from proxy.delivery.flights import Flight
from proxy.delivery.owner import Filled, Owner
from proxy.delivery.pour import Pouring
from proxy.delivery.spool import Spool
from proxy.errors import (
    CorruptClip,
    DiskExhausted,
    FirstviewError,
    ObjectMissing,
    Overloaded,
    SourceUnavailable,
)
from proxy.settings import Settings
from proxy.storage.disk_cache import DiskCache, Reservation
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.of_fills import NO_ROOM
from proxy.telemetry.values import CANCELLED, INTERNAL, NONE, OK

UNKNOWN_LENGTH = 64 * 1024 * 1024
"""Bytes reserved at first for a clip whose source does not say how long it is."""


class Fills:
    """Runs fills; everything that all of them share."""

    def __init__(
        self,
        settings: Settings,
        *,
        claims: Claims,
        disk: DiskCache,
        owner: Owner,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Take the limits and the parts that a fill works with."""
        self._settings = settings
        self._disk = disk
        self._owner = owner
        self._clock = clock
        self._metrics = metrics
        self._claims = claims
        self._pouring = Pouring(settings, disk=disk, owner=owner, clock=clock, metrics=metrics)
        self._range_bytes = 0

    async def run(self, flight: Flight) -> None:
        """Fill one flight to its end; errors go to the flight, only cancellation is raised."""
        account = flight.account
        try:
            await self._run(flight)
        except asyncio.CancelledError:
            self._ended(flight, CANCELLED)
            flight.fail(SourceUnavailable("the process is stopping"))
            account.tell("stopped")
            raise
        except DiskExhausted as error:
            self._ended(flight, NO_ROOM)
            self._metrics.passthrough.labels("disk").inc()
            account.tell("streamed-through", "warning", reason="disk")
            flight.fail(error if flight.is_ready else Overloaded("there is no room for the clip"))
        except FirstviewError as error:
            self._ended(flight, error.slug)
            if not isinstance(error, ObjectMissing):  # or nobody's id: its request tells of that
                account.tell(error.slug, "warning", detail=error.detail)
            if isinstance(error, CorruptClip) and flight.source is not None:
                await self._owner.refused(flight.source, error)
            flight.fail(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, viewers are told
            account.tell("crashed", "error", exc_info=error)
            self._ended(flight, INTERNAL)
            flight.fail(FirstviewError())
        else:
            _tell_the_end(flight)

    def _ended(self, flight: Flight, outcome: str) -> None:
        source = NONE if flight.source is None else flight.source.tier
        self._metrics.fills.labels(source, outcome).inc()

    async def _run(self, flight: Flight) -> None:
        await flight.way()
        claim = await self._claims.take(flight)
        if claim is None:  # whole, by another process
            return
        try:
            with self._counting_range_bytes(flight, claim.body.total or 0) as admitted:
                await self._fill_or_not(flight, claim, admitted=admitted)
        finally:
            await claim.close()

    async def _fill_or_not(self, flight: Flight, claim: Claim, *, admitted: bool) -> None:
        """Fill if there is room, or let each viewer read the source itself."""
        reservation = None
        if admitted and claim.spool is not None:
            reservation = await self._reserve(claim.body)
        if reservation is None or claim.spool is None:
            if claim.spool is not None:
                await _give_up(claim.spool)
            self._stream_through(flight, claim.body, "disk" if admitted else "range_budget")
            return
        flight.board(claim.spool)
        await self._fill(flight, claim, claim.spool, reservation)

    async def _fill(
        self, flight: Flight, claim: Claim, spool: Spool, reservation: Reservation
    ) -> None:
        body, began = claim.body, self._clock.monotonic()
        async with contextlib.AsyncExitStack() as unowned:
            unowned.callback(reservation.release)
            unowned.push_async_exit(partial(_leave, flight, spool))
            upload = await self._pouring.pour(
                flight, body, spool, reservation, facts=claim.facts, unowned=unowned
            )
            await body.close()
            facts = flight.facts
            if facts is None or flight.superseded:
                return
            self._metrics.fill_seconds.labels(body.source.tier).observe(
                self._clock.monotonic() - began
            )
            unowned.pop_all()  # the file, its bytes of the budget and its upload change hands here
            await self._owner.take(
                Filled(
                    flight=flight,
                    source=body.source,
                    facts=facts,
                    head=body.head,
                    spool=spool,
                    sha256=spool.sha256,
                    reservation=reservation,
                    upload=upload,
                )
            )
            self._ended(flight, OK)

    async def _reserve(self, body: Body) -> Reservation | None:
        return await self._disk.reserve(UNKNOWN_LENGTH if body.total is None else body.total)

    # -- where there is no room ---

    def _stream_through(self, flight: Flight, body: Body, reason: str) -> None:
        """No room: each viewer reads the source itself; counted, never an error of theirs."""
        if flight.is_ready:  # they have a part of it from a process that ended
            raise DiskExhausted
        if body.total is None:
            msg = "there is no room for a clip of unknown length; try again shortly"
            raise Overloaded(msg)
        self._ended(flight, NO_ROOM)
        self._metrics.passthrough.labels(reason).inc()
        flight.land(body.facts(body.total))
        flight.account.tell("streamed-through", "warning", reason=reason)

    @contextlib.contextmanager
    def _counting_range_bytes(self, flight: Flight, size: int) -> Iterator[bool]:
        counted = size if flight.by_range else 0
        admitted = self._range_bytes + counted <= self._settings.range_fill_bytes
        self._range_bytes += counted if admitted else 0
        try:
            yield admitted
        finally:
            self._range_bytes -= counted if admitted else 0


def _tell_the_end(flight: Flight) -> None:
    """Tell how a fill ended that has not failed; storing tells the rest of one that goes on."""
    if flight.superseded:
        flight.account.tell("superseded")
    elif flight.followed and not flight.account.bytes:
        flight.account.tell("followed", "debug")  # it is another process's to tell
    elif not flight.account.is_passed_on:
        flight.account.tell("whole")


async def _leave(
    flight: Flight, spool: Spool, _: object, error: BaseException | None, __: object
) -> None:
    """What becomes of a file that nobody owns: it goes, unless only this process ends.

    Then whoever takes its lock goes on with it: a process that follows it, or the next one here.
    """
    if isinstance(error, DiskExhausted):
        await _give_up(spool)
        return
    ends = isinstance(error, asyncio.CancelledError)
    if not ends or flight.facts is None or flight.superseded:
        await spool.remove()
    spool.let_go()


async def _give_up(spool: Spool) -> None:
    """Have those who follow the file do without one as well."""
    spool.give_up()
    await spool.remove()
    spool.let_go()
