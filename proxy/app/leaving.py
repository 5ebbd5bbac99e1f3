"""Leaving: what a process does from the moment that it is told to stop.

Belongs here: the steps, each of which comes at a moment that somebody else chooses. Must not know:
signals, other processes, or how any part finishes.

    announce ─▶ doors close ─▶ quiet ─▶ replies end ─▶ jobs and fills end ─▶ the rest is closed
                                         └─ hurry ─▶ cut off: on disk for the next process
"""

from __future__ import annotations

import asyncio
from typing import Final

from proxy.app.corridor import Corridor
from proxy.app.grace import Grace
from proxy.app.health import Health, Stage
from proxy.app.labour import Labour
from proxy.app.listeners import Listening
from proxy.clock import Clock

_FIRST_WORD: Final = 1.0
"""Seconds in which connections that were accepted last may still begin with a request."""
_LAST_WORD: Final = 5.0
"""Seconds in which connections of a process that was replaced may ask once more, and hear that they
end. Nobody waits for that."""
_LOOK: Final = 0.05
"""Seconds between two looks at connections that are waited for."""


class Leaving:
    """Of one process; `listening` is None in one without viewers."""

    def __init__(self, health: Health, grace: Grace, clock: Clock) -> None:
        """Use the steps once `take` has been called."""
        self._health = health
        self._grace = grace
        self._clock = clock
        self._corridor: Corridor | None = None
        self._labour: Labour | None = None
        self._cutting: asyncio.Task[None] | None = None
        self.listening: Listening | None = None

    def take(self, corridor: Corridor, labour: Labour) -> None:
        """Take the parts that have to end."""
        self._corridor, self._labour = corridor, labour

    def announce(self) -> None:
        """Not ready any more, no new jobs, and `Connection: close` on every new reply."""
        self._health.stage = Stage.DRAINING
        if self._labour is not None:
            self._labour.worker.rest()
        if self.listening is not None:
            self.listening.listener.announce()

    async def quiet(self, *, replaced: bool) -> None:
        """Wait a little, the doors being closed, for those who may be about to ask.

        They were let in last and have said nothing yet; where another process has taken over, all
        who are idle get the time to ask once more.
        """
        if self.listening is None:
            return
        listener, patience = self.listening.listener, _LAST_WORD if replaced else _FIRST_WORD
        ends = self._clock.monotonic() + patience
        await asyncio.sleep(_LOOK)  # what the loop has accepted is counted by then
        while self._clock.monotonic() < ends:
            if not (listener.idle if replaced else listener.unheard):
                return
            await asyncio.sleep(_LOOK)

    async def finish(self) -> None:
        """Let jobs and fills end within the grace."""
        if self._labour is not None and self._corridor is not None:
            await self._labour.worker.close(self._grace.left)
            await self._corridor.flights.drain(self._grace.left)

    def hurry(self) -> None:
        """Let nothing finish that takes its time; what is on disk is the next process's."""
        self._grace.cut()
        if self._cutting is None:
            self._cutting = asyncio.create_task(self._cut_off(), name="hurry")

    async def _cut_off(self) -> None:
        if self.listening is not None:
            self.listening.listener.abort()
        if self._labour is not None and self._corridor is not None:
            await self._labour.worker.close(0)
            await self._corridor.flights.drain(0)
            await self._corridor.ownership.storing.close(0)
