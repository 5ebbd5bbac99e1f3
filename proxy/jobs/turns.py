"""Turns: what one replica does at a time, kept while it is done and handed on with its place.

Belongs here: taking a lease, its heartbeat, giving it back. Must not know: what is done in a turn.

    take ─▶ work ⇄ heartbeat notes the place ─▶ finish: due again in a while, at that place
                 └── crash: the lease runs out, and the next holder goes on at the place noted last
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from proxy.catalog.leases import Lease, Leases
from proxy.errors import CatalogError, LeaseLost

SOON: Final = 60.0
"""Seconds after which work that was put off goes on, and between two looks whether it is due; less
where sweeps are made more often than that."""

_BEATS: Final = 3
"""Times that a lease is extended before it would have run out."""
_GIVING_BACK: Final = 5.0
"""Seconds that a process which stops spends on giving a lease back; otherwise it runs out."""

log = structlog.get_logger()


@dataclass(slots=True)
class Turn:
    """One turn. `place` is how far the work is; `due_in` seconds later it is somebody's turn again.

    Whoever is interrupted leaves both as they are: the work is due at once, and goes on there.
    """

    place: str | None
    due_in: float = 0.0
    lost: bool = False

    def reached(self, place: str | None) -> None:
        """Note how far the work is. Raises LeaseLost if it is somebody else's turn by now."""
        self.place = place
        if self.lost:
            raise LeaseLost


class Turns:
    """Takes turns. `owner` names this process, `length` (seconds) is how long a dead one blocks."""

    def __init__(self, leases: Leases, *, owner: str, length: float) -> None:
        """Take the leases."""
        self._leases = leases
        self._owner = owner
        self._length = timedelta(seconds=length)

    @contextlib.asynccontextmanager
    async def take(self, name: str, *, due_only: bool = True) -> AsyncIterator[Turn | None]:
        """Take a turn, or None: it is somebody else's, or (`due_only`) not due yet.

        Raises CatalogUnavailable.
        """
        lease = await self._leases.take(name, self._owner, self._length, due_only=due_only)
        if lease is None:
            yield None
            return
        turn = Turn(lease.position or None)
        beating = asyncio.create_task(self._beat(lease, turn), name=f"heartbeat of the {name}")
        try:
            yield turn
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
            await self._finish(lease, turn)

    async def _beat(self, lease: Lease, turn: Turn) -> None:
        while not turn.lost:
            await asyncio.sleep(self._length.total_seconds() / _BEATS)
            try:
                # None would say "as before", and the work may be at its beginning again.
                turn.lost = not await self._leases.extend(lease, self._length, turn.place or "")
            except CatalogError as error:  # nobody else can take it meanwhile either
                log.info("a turn could not be prolonged", turn=lease.name, error=error.slug)

    async def _finish(self, lease: Lease, turn: Turn) -> None:
        due_in = timedelta(seconds=turn.due_in)
        try:
            async with asyncio.timeout(_GIVING_BACK):
                await self._leases.finish(lease, due_in=due_in, position=turn.place)
        except (CatalogError, TimeoutError):
            log.info("a turn could not be given back; it runs out", turn=lease.name)
