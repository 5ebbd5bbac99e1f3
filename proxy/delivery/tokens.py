"""A token bucket: so many a second, and that many at once. Pure but for the clock it is given.

Belongs here: the arithmetic. Must not know: what a token buys.
"""

from __future__ import annotations

from proxy.clock import Clock


class TokenBucket:
    """Holds up to `burst` tokens and gains `rate` a second."""

    def __init__(self, rate: float, burst: float, clock: Clock) -> None:
        """Begin full."""
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._clock = clock
        self._tokens = self._burst
        self._at = clock.monotonic()

    def take(self) -> bool:
        """Take one token, if there is one."""
        now = self._clock.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
