"""How long to wait before a worker that died is replaced: pure.

Belongs here: one place's recent deaths. Must not know: processes.
"""

from __future__ import annotations

from typing import Final

from proxy.clock import Clock

_LONG_LIFE: Final = 30.0
"""Seconds after which a death has nothing to do with the one before."""
_FIRST: Final = 0.25
_LONGEST: Final = 10.0
"""Seconds: the wait after the second early death, and the longest; it doubles in between."""


class Deaths:
    """Of the workers of one place, one after the other. The first death costs no wait."""

    def __init__(self, clock: Clock) -> None:
        """Nobody has died."""
        self._clock = clock
        self._early = 0
        self._began = clock.monotonic()

    def begin(self) -> None:
        """A worker is started."""
        self._began = self._clock.monotonic()

    def pause(self) -> float:
        """Count the death, or the failed start, of the one that began last; seconds to wait."""
        lived = self._clock.monotonic() - self._began
        self._early = 0 if lived >= _LONG_LIFE else self._early + 1
        if self._early <= 1:
            return 0.0
        return min(_LONGEST, _FIRST * 2.0 ** min(self._early - 2, 30))
