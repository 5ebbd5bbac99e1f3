"""What the catalog said, for a while: the memory that keeps it off the hot path.

Belongs here: how long a row is believed, that concurrent questions are one question, and that an
answer which was overtaken by a change is not believed. Must not know: where clips are.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

from cachetools import TTLCache

from proxy.clock import Clock
from proxy.errors import CatalogError, CatalogUnavailable
from proxy.records import ClipFacts, Generation, Status
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics

_SERVABLE = {Status.AVAILABLE, Status.STORED}
"""Rows worth remembering: the others may become servable at any moment."""


class Lookup(Protocol):
    """What is asked of the catalog; `proxy.catalog.generations.Generations` keeps it."""

    async def get(self, request_id: str) -> Generation | None:
        """Return the row of an id."""
        ...


class Remembered:
    """Rows by id, each believed for `facts_ttl`. None is remembered for a clip without a row."""

    def __init__(self, settings: Settings, rows: Lookup, clock: Clock, metrics: Metrics) -> None:
        """Take the catalog."""
        self._rows = rows
        self._metrics = metrics
        self._fresh: TTLCache[str, Generation | None] = TTLCache(
            settings.facts_max, settings.facts_ttl, timer=clock.monotonic
        )
        self._asking: dict[str, asyncio.Task[Generation | None]] = {}
        self.changes = 0
        """Counts the times that the catalog was changed from here."""

    def __contains__(self, request_id: str) -> bool:
        """Whether something fresh is remembered of an id."""
        return request_id in self._fresh

    async def ask(
        self, request_id: str, patience: float | None
    ) -> tuple[Generation | None, CatalogError | None]:
        """The row of an id, or why it cannot be had; waits `patience` seconds at most."""
        if request_id in self._fresh:
            return self._fresh.get(request_id), None
        task = self._asking.get(request_id)
        if task is None:
            task = asyncio.create_task(self._rows.get(request_id))
            self._asking[request_id] = task
            task.add_done_callback(lambda done: self._answered(request_id, done))
        changes = self.changes
        try:
            async with asyncio.timeout(patience):
                row = await asyncio.shield(task)
        except CatalogError as error:
            self._metrics.catalog_errors.inc()
            return None, error
        except TimeoutError:
            self._metrics.catalog_errors.inc()
            return None, CatalogUnavailable()
        if row is not None and row.status in _SERVABLE and changes == self.changes:
            self._fresh[request_id] = row
        return row, None

    def _answered(self, request_id: str, task: asyncio.Task[Generation | None]) -> None:
        if self._asking.get(request_id) is task:
            del self._asking[request_id]

    def believe(self, request_id: str, row: Generation | None) -> None:
        """Remember what a clip that is here was found to be, if nothing is remembered yet."""
        self._fresh.setdefault(request_id, row)

    def stored(self, facts: ClipFacts) -> None:
        """A clip was stored: know it without asking, so that it is looked for in the bucket."""
        row = self._fresh.get(facts.request_id)
        if row is not None:
            self._fresh[facts.request_id] = replace(
                row,
                status=Status.STORED,
                etag=facts.etag,
                content_length=facts.length,
                last_modified=facts.last_modified,
            )

    def drop(self, request_id: str) -> None:
        """Ask again at the next request."""
        self._fresh.pop(request_id, None)

    def changed(self, request_id: str) -> None:
        """The catalog was told something of this id: no answer that is under way counts."""
        self.changes += 1
        self._fresh.pop(request_id, None)
        self._asking.pop(request_id, None)
