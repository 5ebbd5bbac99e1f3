"""Flights: the clips on their way in, so that any number of viewers cause one fill.

Belongs here: who is filling what, and waiting for a fill to know its clip. Must not know: how a
fill works. The race that this settles is spelled out at `join_or_start`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

from prometheus_client import Counter

from proxy.delivery.account import Account
from proxy.delivery.bell import Bell
from proxy.delivery.sources import Source
from proxy.delivery.tail import Tail
from proxy.errors import FirstviewError, Overloaded
from proxy.records import ByteStream, ClipFacts
from proxy.storage.open_files import OpenFile

_COURTESY = 0.05
"""Seconds for which a fill waits for a far range at most. On one core, whichever of both is first
delays the other by all of its own way to the source, and the fill by its first megabytes besides.
"""


def told_length(stream: ByteStream) -> int | None:
    """The whole clip's length, if a far range tells it, so that a reply can begin with that."""
    return stream.head.total or None if stream.head.start > 0 else None


class Flight:
    """One clip on its way in. Its task outlives every viewer."""

    def __init__(
        self,
        request_id: str,
        sources: tuple[Source, ...],
        *,
        by_range: bool,
        by_job: bool = False,
    ) -> None:
        """Begin without facts.

        `by_range`: nobody has asked for the whole clip yet; `by_job`: no viewer has begun it.
        """
        self.request_id = request_id
        self.sources = sources
        self.by_range = by_range
        self.by_job = by_job
        self.account = Account(request_id, "job" if by_job else "range" if by_range else "view")
        self.error: FirstviewError | None = None
        """What it failed with."""
        self.facts: ClipFacts | None = None
        self.source: Source | None = None
        self.validator: str | None = None
        self.spool: Tail | None = None
        self.followed = False
        """Whether another process of this machine brings it in, or has begun to."""
        self.copy: OpenFile | None = None
        """A whole clip that it is filled from, kept open as long as anybody needs the flight."""
        self.seeks = 0
        self.superseded = False
        self.task: asyncio.Task[None] | None = None
        self._holders = 1
        self._way: asyncio.Future[None] | None = None
        self._ready: asyncio.Future[ClipFacts] = asyncio.get_running_loop().create_future()
        self._bell = Bell()

    @property
    def is_ready(self) -> bool:
        """Whether `ready` returns without waiting."""
        return self._ready.done()

    @property
    def is_unwatched_mirror(self) -> bool:
        """Whether only a job wants this clip just now."""
        return self.by_job and self._holders == 1

    def give_way(self, early: asyncio.Task[ByteStream]) -> None:
        """Let a far range be answered first: a viewer waits for that, and nobody for the fill.

        To be said before the flight's task has begun. It waits for `_COURTESY` at the most.
        """
        loop = asyncio.get_running_loop()
        self._way = loop.create_future()
        loop.call_later(_COURTESY, self.go)
        early.add_done_callback(self._go_unless_of_use)

    def _go_unless_of_use(self, early: asyncio.Task[ByteStream]) -> None:
        failed = early.cancelled() or early.exception() is not None
        if failed or told_length(early.result()) is None:
            self.go()

    def go(self) -> None:
        """Nobody is in the way any more."""
        if self._way is not None and not self._way.done():
            self._way.set_result(None)

    async def way(self) -> None:
        """Wait until nobody is in the way."""
        if self._way is not None:
            await self._way

    async def ready(self) -> ClipFacts:
        """Wait until the clip's facts are known and its first bytes are here.

        Afterwards `spool` is set, or None if there is no room for the clip and it has to be
        streamed through from `source`. Raises what made the fill fail before its first byte.
        """
        if not self._ready.done():
            await self._bell.rung()  # a shield takes one more turn
        return self._ready.result()

    def land(self, facts: ClipFacts) -> None:
        """Let the waiting viewers begin."""
        self.facts = facts
        self.account.landed()
        if not self._ready.done():
            self._ready.set_result(facts)
            self._bell.ring()

    def fail(self, error: FirstviewError) -> None:
        """Tell the waiting viewers, and those who are reading."""
        self.error = error
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # a flight without viewers has nobody to retrieve it
            self._bell.ring()
        if self.spool is not None:
            self.spool.fail(error)

    def board(self, spool: Tail) -> None:
        """Keep the file that viewers read from, open until the last of them is gone."""
        if self.spool is None:
            spool.acquire()
            self.spool = spool

    def hold(self) -> None:
        """Keep the spool open for one more viewer, from before there is a spool."""
        self._holders += 1

    def drop(self) -> None:
        """Give the spool up; the last of the fill and its viewers closes it."""
        self._holders -= 1
        if self._holders > 0:
            return
        if self.spool is not None:
            self.spool.release()
        if self.copy is not None:
            self.copy.release()
            self.copy = None

    @contextlib.contextmanager
    def seek(self, limit: int) -> Iterator[bool]:
        """Take one of the clip's `limit` places for a range beside the fill, if there is one."""
        taken = self.seeks < limit
        self.seeks += taken
        try:
            yield taken
        finally:
            self.seeks -= taken


class Flights:
    """All flights of this process."""

    def __init__(self, max_fills: int, shed: Counter | None = None) -> None:
        """Bound the number of fills at once; `shed` counts viewers beyond that."""
        self._flights: dict[str, Flight] = {}
        self._max_fills = max_fills
        self._shed = shed
        self._tasks: set[asyncio.Task[None]] = set()
        self.repointed = 0
        """Counts the times that an id came to mean another clip."""

    def __len__(self) -> int:
        """How many clips are on their way in."""
        return len(self._flights)

    def get(self, request_id: str) -> Flight | None:
        """The flight of a clip, if there is one."""
        return self._flights.get(request_id)

    def join_or_start(
        self,
        request_id: str,
        sources: tuple[Source, ...],
        fill: Callable[[Flight], Awaitable[None]],
        *,
        by_range: bool,
        by_job: bool = False,
    ) -> tuple[Flight, bool]:
        """Return the clip's flight and whether it was there already.

        Nothing is awaited between looking and starting, so of two callers who both found the
        clip nowhere, one starts the fill and the other joins it. Raises Overloaded at the bound.
        """
        flight = self._flights.get(request_id)
        if flight is not None:
            flight.by_range = flight.by_range and by_range
            return flight, True
        if len(self._flights) >= self._max_fills:
            if self._shed is not None and not by_job:
                self._shed.inc()
            msg = "too many clips are being fetched at once; try again shortly"
            raise Overloaded(msg)
        flight = Flight(request_id, sources, by_range=by_range, by_job=by_job)
        self._flights[request_id] = flight
        flight.task = asyncio.create_task(self._run(flight, fill), name=f"fill {request_id}")
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        return flight, False

    async def _run(self, flight: Flight, fill: Callable[[Flight], Awaitable[None]]) -> None:
        try:
            await fill(flight)
        finally:
            self.forget(flight)
            flight.drop()

    def forget(self, flight: Flight) -> None:
        """Let the next viewer of the clip look for it anew."""
        if self._flights.get(flight.request_id) is flight:
            del self._flights[flight.request_id]

    async def supersede(self, request_id: str) -> None:
        """The id was re-pointed: present viewers finish, nothing of it is kept, none join."""
        flight = self.cut(request_id)
        if flight is not None and flight.spool is not None:
            await flight.spool.remove()

    def cut(self, request_id: str) -> Flight | None:
        """Let nobody join the flight of an id that was re-pointed; what it has stays for now."""
        self.repointed += 1
        flight = self._flights.pop(request_id, None)
        if flight is not None:
            flight.superseded = True
        return flight

    async def drain(self, timeout: float) -> None:
        """Let the fills finish for `timeout` seconds, then cancel them."""
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=timeout)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
