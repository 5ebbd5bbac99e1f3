"""Time and chance: the one seam through which the rest of the code reads either.

Belongs here: what time it is, and random jitter. Must not know: what it is used for.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime


class Clock:
    """The real clock; tests pass another one with the same methods."""

    def now(self) -> datetime:
        """Wall-clock time, timezone-aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""
        return time.monotonic()

    def jitter(self, ceiling: float) -> float:
        """A random wait between 0 and `ceiling` seconds: "full jitter" (AWS, 2015)."""
        return random.uniform(0.0, ceiling)  # noqa: S311 - spreads load; guards nothing
