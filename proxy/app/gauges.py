"""The gauges: what is true at the moment when somebody looks at the metrics.

Belongs here: reading it from the parts, without keeping a scrape waiting. Must not know: who looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from typing import Final

from proxy.app.corridor import Corridor
from proxy.app.labour import Labour
from proxy.app.places import Places
from proxy.errors import CatalogError

_EVERY: Final = 15.0
"""Seconds between two counts of the jobs: with a million of them one takes a fifth of a second."""
_PATIENCE: Final = 2.0
"""Seconds that a scrape waits for the catalog; then the jobs' figures stay as they were."""


def gauges_of(places: Places, corridor: Corridor, labour: Labour) -> Callable[[], Awaitable[None]]:
    """What brings all gauges up to date."""
    metrics, clock = places.metrics, places.clock
    counted_at = -math.inf

    async def refresh() -> None:
        nonlocal counted_at
        metrics.fills_in_flight.set(len(corridor.flights))
        metrics.kept.set(len(corridor.ownership))
        metrics.cached_clips.set(len(places.disk))
        metrics.disk_used.set(places.disk.used)
        if clock.monotonic() - counted_at < _EVERY:
            return
        with contextlib.suppress(CatalogError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                counts = await labour.jobs.count()
            counted_at = clock.monotonic()
            for (kind, state), count in counts.by_state.items():
                metrics.jobs.labels(kind, state).set(count)
            for kind, late in counts.oldest_due.items():
                metrics.oldest_due.labels(kind).set(late)

    return refresh
