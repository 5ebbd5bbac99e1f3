"""The figures: what the metrics say at the moment when somebody looks.

Belongs here: bringing the gauges up to date without keeping a scrape waiting, and putting together
what this process has counted and what those beside it have. Must not know: who looks, or how the
other processes are asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from proxy.app.corridor import Corridor
from proxy.app.labour import Labour
from proxy.app.places import Places
from proxy.errors import CatalogError
from proxy.storage.free_space import free_bytes
from proxy.telemetry.samples import Family, merged, read, render
from proxy.telemetry.values import BREAKERS, OTHER
from proxy.upstream.breaker import State

_EVERY: Final = 15.0
"""Seconds between two counts of the jobs: with a million of them one takes a fifth of a second."""
_PATIENCE: Final = 2.0
"""Seconds that a scrape waits for the catalog, or for the disk; then their figures stay as they
were."""
_NAMED_HOSTS: Final = 16
"""Hosts upstream that have a series of their own."""


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
            metrics.workers.set(int(self._places.has_viewers))
            await self.look_at_this_process()
            self._set_gauges()
            return render(read(metrics.registry))
        own = [one for one in read(metrics.registry) if one.name in metrics.of_the_machine]
        return render(merged([await self._crew(), own]))

    def own(self) -> list[Family]:
        """What this process alone has counted, for the sum that its crew makes."""
        self._set_gauges()
        metrics = self._places.metrics
        return read(metrics.registry, without=metrics.of_the_machine)

    async def look_at_this_process(self) -> None:
        """Ask the kernel about it; its memory and its descriptors stay as they were till then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await asyncio.to_thread(self._places.metrics.vitals.look)

    def _set_gauges(self) -> None:
        metrics, settings = self._places.metrics, self._places.settings
        metrics.fills_in_flight.set(len(self._corridor.flights))
        metrics.kept.set(len(self._corridor.ownership))
        metrics.kept_bytes.set(self._corridor.ownership.size)
        metrics.oldest_kept.set(self._corridor.ownership.longest_wait)
        metrics.limit.labels("max_fills").set(settings.max_fills)
        if self._places.has_viewers:
            metrics.limit.labels("max_connections").set(settings.max_connections)
            metrics.limit.labels("max_viewers").set(settings.max_viewers)
        self._set_breakers()

    def _set_breakers(self) -> None:
        metrics, hosts = self._places.metrics, self._places.upstream.breakers()
        states = Counter(state.value for state in hosts.values())
        for state in BREAKERS:
            metrics.breakers.labels(state).set(states[state])
        # Those that rest come first: the names are few, however many hosts are asked.
        named = sorted(hosts, key=lambda host: hosts[host] is not State.OPEN)
        metrics.resting.clear()
        for number, host in enumerate(named):
            name = host if number < _NAMED_HOSTS else OTHER
            metrics.resting.labels(name).inc(hosts[host] is State.OPEN)

    async def _look_at_the_machine(self) -> None:
        metrics, clock, settings = self._places.metrics, self._places.clock, self._places.settings
        metrics.cached_clips.set(len(self._places.disk))
        metrics.disk_used.set(self._places.disk.used)
        metrics.disk_limit.set(settings.cache_max_bytes)
        metrics.disk_reserve.set(settings.disk_reserve)
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                metrics.disk_free.set(await asyncio.to_thread(free_bytes, settings.data_dir))
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
