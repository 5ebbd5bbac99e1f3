"""The figures: what the metrics say at the moment when somebody looks.

Belongs here: bringing the gauges up to date without keeping a scrape waiting, and putting together
what this process has counted and what those beside it have. Must not know: who looks, or how the
other processes are asked.
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
from proxy.telemetry.samples import Family, merged, read, render

_EVERY: Final = 15.0
"""Seconds between two counts of the jobs: with a million of them one takes a fifth of a second."""
_PATIENCE: Final = 2.0
"""Seconds that a scrape waits for the catalog; then the jobs' figures stay as they were."""


Crew = Callable[[], Awaitable[list[Family]]]
"""Gives what all processes that serve together have counted, this one included.

Raises ConnectionError or TimeoutError if whoever knows it is gone.
"""


class Figures:
    """Of one process, and of its crew if it has one."""

    def __init__(
        self, places: Places, corridor: Corridor, labour: Labour, crew: Crew | None = None
    ) -> None:
        """Take the parts that are looked at."""
        self._places = places
        self._corridor = corridor
        self._labour = labour
        self._crew = crew
        self._counted_at = -math.inf

    async def written(self) -> bytes:
        """All metrics in Prometheus' text format. Raises as `Crew` does."""
        metrics = self._places.metrics
        await self._look_at_the_machine()
        if self._crew is None:
            metrics.workers.set(1)
            self._look_at_this_process()
            return render(read(metrics.registry))
        own = [one for one in read(metrics.registry) if one.name in metrics.of_the_machine]
        return render(merged([await self._crew(), own]))

    def own(self) -> list[Family]:
        """What this process alone has counted, for the sum that its crew makes."""
        self._look_at_this_process()
        metrics = self._places.metrics
        return read(metrics.registry, without=metrics.of_the_machine)

    def _look_at_this_process(self) -> None:
        metrics = self._places.metrics
        metrics.fills_in_flight.set(len(self._corridor.flights))
        metrics.kept.set(len(self._corridor.ownership))

    async def _look_at_the_machine(self) -> None:
        metrics, clock = self._places.metrics, self._places.clock
        metrics.cached_clips.set(len(self._places.disk))
        metrics.disk_used.set(self._places.disk.used)
        if clock.monotonic() - self._counted_at < _EVERY:
            return
        with contextlib.suppress(CatalogError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                counts = await self._labour.jobs.count()
            self._counted_at = clock.monotonic()
            for (kind, state), count in counts.by_state.items():
                metrics.jobs.labels(kind, state).set(count)
            for kind, late in counts.oldest_due.items():
                metrics.oldest_due.labels(kind).set(late)
