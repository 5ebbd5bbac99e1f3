"""A bell: all who wait for the next change of something are woken at once.

Belongs here: waiting and waking. Must not know: what has changed.
"""

from __future__ import annotations

import asyncio


class Bell:
    """Woken waiters look for themselves what there is; whoever comes later waits for the next."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiters: list[asyncio.Future[None]] = []

    def rung(self) -> asyncio.Future[None]:
        """What to await for the next ring; one's own, so that it may be cancelled."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def ring(self) -> None:
        """Wake all who wait."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
