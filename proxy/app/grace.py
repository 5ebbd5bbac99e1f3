"""The grace: how long everything together may still take once the process is told to stop.

Belongs here: one deadline that all parts share. Must not know: the parts.
"""

from __future__ import annotations

from typing import Final

from proxy.clock import Clock

_LEAST: Final = 1.0
"""Seconds that every part gets, however much those before it took."""


class Grace:
    """Runs from `begin` on; until then nothing of it is spent."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        """Take the whole time, in seconds."""
        self._seconds = seconds
        self._clock = clock
        self._end: float | None = None

    def lengthen(self, seconds: float) -> None:
        """Take another time for the whole; before it begins."""
        self._seconds = seconds

    def begin(self) -> None:
        """Stopping begins now."""
        self._end = self._clock.monotonic() + self._seconds

    def cut(self) -> None:
        """Nothing is left of it, but for what every part gets."""
        self._seconds = 0.0
        if self._end is not None:
            self.begin()

    @property
    def left(self) -> float:
        """Seconds that a part may take from now on."""
        if self._end is None:
            return self._seconds
        return max(_LEAST, self._end - self._clock.monotonic())
