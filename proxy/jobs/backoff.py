"""How long a job waits before it is tried again.

Belongs here: arithmetic on seconds. Must not know: jobs, clocks, what is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_FLOOR: Final = 0.1
"""Share of the first wait below which no wait falls, or chance could make one of no time at all."""
_AGE: Final = 0.125
"""Share of its age that something waits which keeps failing through no fault of its own."""

Jitter = Callable[[float], float]
"""Returns a random figure between 0 and the one given; `proxy.clock.Clock.jitter` is one."""


def backoff(attempt: int, *, base: float, longest: float, jitter: Jitter) -> float:
    """Return the seconds to wait after failure number `attempt`, which counts from 1.

    Exponential with full jitter: anything up to `base`, 2 `base`, 4 `base`, … `longest`
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), so that what
    failed together does not come back together. Never less than a tenth of `base`.
    """
    doublings = min(max(attempt, 1) - 1, 64)  # far beyond any limit, and no overflow
    return max(_FLOOR * base, jitter(min(longest, base * 2**doublings)))


def pause(age: float, *, least: float, longest: float, jitter: Jitter) -> float:
    """Return the seconds to wait for something outside that has to change first.

    An eighth of the `age` in seconds, so that young jobs are on time and old ones cost little,
    between `least` and `longest`; up to half as much again on top, by chance.
    """
    wait = max(least, min(longest, age * _AGE))
    return wait + jitter(wait / 2)
