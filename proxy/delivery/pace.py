"""The pace of fills that nobody watches, so that mirroring leaves the line to viewers.

Belongs here: waiting until the budget has room for what was read. Must not know: what is read, or
where the budget comes from.
"""

from __future__ import annotations

import asyncio
from typing import Final

from proxy.clock import Clock
from proxy.delivery.flights import Flight

_LONGEST_NAP: Final = 0.25
"""Seconds after which a fill that is being held back looks whether a viewer has come."""


class Pace:
    """So many bytes a second for all unwatched mirror fills of this process; None: any number."""

    def __init__(self, rate: int | None, clock: Clock) -> None:
        """Begin with a second's worth to spend."""
        self._rate = rate
        self._clock = clock
        self._paid_until = clock.monotonic() - 1.0

    async def spend(self, flight: Flight, count: int) -> None:
        """Wait until `count` bytes are paid for.

        A flight that has a viewer, here or in another process of this machine, does not pay.
        """
        if self._rate is None or not flight.is_unwatched_mirror:
            return
        now = self._clock.monotonic()
        self._paid_until = max(self._paid_until, now - 1.0) + count / self._rate
        owed_until = self._paid_until
        while flight.is_unwatched_mirror:
            left = owed_until - self._clock.monotonic()
            if left <= 0:
                return
            if await _is_watched_elsewhere(flight):
                self._paid_until -= count / self._rate
                return
            await asyncio.sleep(min(left, _LONGEST_NAP))


async def _is_watched_elsewhere(flight: Flight) -> bool:
    return flight.spool is not None and await flight.spool.is_watched_elsewhere()
