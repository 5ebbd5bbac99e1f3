"""The corridor, put together: what finds clips, fills them, owns them.

Belongs here: which part gets which. Must not know: what any of them does, or who asks for clips.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from proxy.app.grace import Grace
from proxy.app.places import Places
from proxy.delivery.candidates import Candidates
from proxy.delivery.claims import Claims
from proxy.delivery.commit import Commits
from proxy.delivery.fill import Fills
from proxy.delivery.flights import Flights
from proxy.delivery.locate import Locator
from proxy.delivery.mirror import Mirrors
from proxy.delivery.near import Near
from proxy.delivery.own import Ownership
from proxy.delivery.remembered import Remembered
from proxy.delivery.traced import TracedCommits, TracedFills, TracedLocator
from proxy.storage.open_files import OpenFiles

T = TypeVar("T")

_HEED: Final = 0.1
"""Seconds between two looks at what other processes did."""
_FILES: Final = 256
"""Open files looked at each time: 8,192 of them take three seconds, in which an evicted one still
takes up its room on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corridor:
    """The ways in: `locator` for viewers, `mirrors` for jobs; both end in the same fills."""

    flights: Flights
    ownership: Ownership
    locator: Locator
    mirrors: Mirrors


@contextlib.asynccontextmanager
async def open_corridor(places: Places, grace: Grace) -> AsyncIterator[Corridor]:
    """Take up what an earlier process left, and at the end let fills and uploads finish."""
    settings, clock, metrics = places.settings, places.clock, places.metrics
    async with contextlib.AsyncExitStack() as stack:
        ownership = _ownership(places)
        await ownership.load()
        stack.push_async_callback(lambda: ownership.close(grace.left))
        near = Near(places.bucket, places.disk, places.files, ownership, places.executor)
        fills = _fills(places, near, ownership)
        flights = Flights(settings.max_fills, metrics.shed.labels("max_fills"))
        rows = Remembered(settings, places.generations, clock, metrics)
        ownership.storing.on_stored = rows.stored
        candidates = Candidates(settings, places.bucket, places.upstream, clock, metrics)
        locator = _traced(Locator, TracedLocator, places)(
            settings=settings,
            near=near,
            rows=rows,
            candidates=candidates,
            flights=flights,
            fills=fills,
            forgets=places.shared.forgets,
        )
        mirrors = Mirrors(
            bucket=places.bucket,
            rows=places.generations,
            near=near,
            candidates=candidates,
            flights=flights,
            fills=fills,
            ownership=ownership,
            upstream=places.upstream,
            executor=places.executor,
            clock=clock,
        )
        stack.push_async_callback(lambda: flights.drain(grace.left))
        retries = asyncio.create_task(ownership.run(), name="kept clips")
        stack.push_async_callback(cancel, retries)
        heeding = asyncio.create_task(_heed(locator, places.files), name="other processes")
        stack.push_async_callback(cancel, heeding)
        yield Corridor(flights=flights, ownership=ownership, locator=locator, mirrors=mirrors)


def _ownership(places: Places) -> Ownership:
    return Ownership(
        places.settings,
        bucket=places.bucket,
        rows=places.generations,
        disk=places.disk,
        files=places.files,
        spool_dir=places.spool_dir,
        executor=places.executor,
        clock=places.clock,
        metrics=places.metrics,
        behind=places.behind,
        keeps_copies=places.has_viewers,
        commits=_traced(Commits, TracedCommits, places),
    )


def _fills(places: Places, near: Near, ownership: Ownership) -> Fills:
    claims = Claims(
        places.settings,
        spool_dir=places.spool_dir,
        near=near,
        owner=ownership,
        executor=places.executor,
        clock=places.clock,
        metrics=places.metrics,
    )
    return _traced(Fills, TracedFills, places)(
        settings=places.settings,
        claims=claims,
        disk=places.disk,
        owner=ownership,
        clock=places.clock,
        metrics=places.metrics,
    )


def _traced(plain: Callable[..., T], traced: Callable[..., T], places: Places) -> Callable[..., T]:
    """What makes a part: with spans around its steps, where somebody collects them."""
    return plain if places.tracer is None else partial(traced, places.tracer)


async def _heed(locator: Locator, files: OpenFiles) -> None:
    """Let go of what other processes forgot or evicted, also while nobody asks for anything."""
    while True:
        await asyncio.sleep(_HEED)
        locator.heed()
        files.drop_nameless(_FILES)


async def cancel(task: asyncio.Task[None]) -> None:
    """End a task that runs for ever."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
