"""Patience: how long a source that broke is waited for, and when it is asked again.

Belongs here: the deadline, which every new byte moves, and the waits between tries. Must not know:
what is read, or for whom.
"""

from __future__ import annotations

import asyncio

from proxy.clock import Clock
from proxy.errors import FirstviewError
from proxy.settings import Settings

_LONGEST_PAUSE = 5.0


class Patience:
    """One reader's patience with one source. It begins with the first break."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Take `fill_stall_timeout` and `fill_resume_backoff`."""
        self._settings = settings
        self._clock = clock
        self._position = -1
        self._pause = 0.0
        self._deadline = 0.0

    @property
    def left(self) -> float:
        """Seconds until it ends."""
        return self._deadline - self._clock.monotonic()

    def progress(self, position: int) -> None:
        """The source broke at a position: if that is a new one, patience begins anew."""
        if position > self._position:
            self._position = position
            self._pause = 0.0
            self._deadline = self._clock.monotonic() + self._settings.fill_stall_timeout

    async def wait(self, error: FirstviewError) -> None:
        """Sleep until the next try, the first of which is at once; raise `error` if too late."""
        if self.left <= 0:
            raise error
        pause = min(self._pause, self.left)
        await asyncio.sleep(pause / 2 + self._clock.jitter(pause / 2))
        longer = max(self._settings.fill_resume_backoff, self._pause * 2)
        self._pause = min(longer, _LONGEST_PAUSE)
