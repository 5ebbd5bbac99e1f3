"""What the catalog said, for a while: the memory that keeps it off the hot path.

Belongs here: how long a row is believed, that concurrent questions are one question, and that an
answer which was overtaken by a change is not believed. Must not know: where clips are.

Clips for everybody and gated ones are believed apart from each other, so that the hot path of the
former has nothing to ask about the latter. That a generation is gated is remembered for longer than
the rest: a catalog that is away, or slow, must not open a clip to everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from cachetools import LRUCache, TTLCache

from proxy.clock import Clock
from proxy.delivery.gating import Gating
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

    def at_hand(self, request_id: str) -> Generation | None:
        """Return the row of an id at once; raises BlockingIOError where that cannot be."""
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
        self._now = clock.monotonic
        self._ttl = settings.facts_ttl
        self._most = settings.facts_max
        self._until: dict[str, float] = {}
        """When each belief ends, oldest first: one look-up on the hot path, not a cache's ten."""
        self._gated_until: dict[str, float] = {}
        """The same, of clips that are gated."""
        self._gating = Gating(by_default=settings.gated)
        self._seen_gated: LRUCache[str, bool] = LRUCache(settings.facts_max)
        """Ids whose row said so when it was last read, however long ago."""
        self._asking: dict[str, asyncio.Task[Generation | None]] = {}
        self.changes = 0
        """Counts the times that the catalog was changed from here."""

    def __contains__(self, request_id: str) -> bool:
        """Whether something fresh is remembered of an id."""
        return self.shows(request_id) or self.gates(request_id)

    def shows(self, request_id: str) -> bool:
        """Whether something fresh is remembered of an id, and it is for everybody."""
        return self._until.get(request_id, 0.0) > self._now()

    def gates(self, request_id: str) -> bool:
        """Whether something fresh is remembered of an id, and it is gated."""
        return self._gated_until.get(request_id, 0.0) > self._now()

    async def ask(
        self,
        request_id: str,
        patience: float,
        *,
        unless: Callable[[], Awaitable[bool]] | None = None,
    ) -> tuple[Generation | None, CatalogError | None]:
        """The row of an id, or why it cannot be had.

        After `patience` seconds without an answer nobody waits on, unless `unless` says that there
        is nothing else to go by.
        """
        if request_id in self._fresh:
            return self._fresh.get(request_id), None
        task = self._asking.get(request_id)
        if task is None:
            with contextlib.suppress(BlockingIOError):
                return self._learnt(request_id, self._rows.at_hand(request_id)), None
            task = asyncio.create_task(self._rows.get(request_id))
            self._asking[request_id] = task
            task.add_done_callback(lambda done: self._answered(request_id, done))
        changes = self.changes
        try:
            await asyncio.wait({task}, timeout=patience)
            if not task.done() and (unless is None or not await unless()):
                raise CatalogUnavailable
            row = await asyncio.shield(task)
        except CatalogError as error:
            self._metrics.catalog_errors.inc()
            return None, error
        if changes == self.changes:
            self._learnt(request_id, row)
        return row, None

    def _learnt(self, request_id: str, row: Generation | None) -> Generation | None:
        if row is not None and row.gated:
            self._seen_gated[request_id] = True
        else:
            self._seen_gated.pop(request_id, None)
        if row is not None and row.status in _SERVABLE:
            self._remember(request_id, row)
        return row

    def is_gated(
        self, request_id: str, row: Generation | None, facts: ClipFacts | None = None
    ) -> bool:
        """Whether a clip is for those alone who have a link, as far as is known by now.

        Where the row cannot be had, what it said when it was last read comes before what an
        older one said, and before what lies beside the clip's bytes.
        """
        return request_id in self._seen_gated or self._gating.holds(row, facts)

    def _answered(self, request_id: str, task: asyncio.Task[Generation | None]) -> None:
        if self._asking.get(request_id) is task:
            del self._asking[request_id]

    def believe(
        self, request_id: str, row: Generation | None, facts: ClipFacts | None = None
    ) -> None:
        """Remember what a clip that is here was found to be, if nothing is remembered yet."""
        if request_id not in self._fresh:
            self._remember(request_id, row, facts)

    def _remember(
        self, request_id: str, row: Generation | None, facts: ClipFacts | None = None
    ) -> None:
        self._forget(request_id)
        self._fresh[request_id] = row
        gated = self.is_gated(request_id, row, facts)
        until = self._gated_until if gated else self._until
        until[request_id] = self._now() + self._ttl
        if len(until) > self._most:
            del until[next(iter(until))]

    def _forget(self, request_id: str) -> None:
        self._until.pop(request_id, None)
        self._gated_until.pop(request_id, None)

    def stored(self, facts: ClipFacts) -> None:
        """A clip was stored: know it without asking, so that it is looked for in the bucket."""
        row = self._fresh.get(facts.request_id)
        if row is not None:
            stored = replace(
                row,
                status=Status.STORED,
                etag=facts.etag,
                content_length=facts.length,
                last_modified=facts.last_modified,
            )
            self._remember(facts.request_id, stored)

    def drop_all(self) -> None:
        """Ask again about everything."""
        self.changes += 1
        self._fresh.clear()
        self._until.clear()
        self._gated_until.clear()
        self._asking.clear()

    def drop(self, request_id: str) -> None:
        """Ask again at the next request."""
        self._fresh.pop(request_id, None)
        self._forget(request_id)

    def changed(self, request_id: str) -> None:
        """The catalog was told something of this id: no answer that is under way counts."""
        self.changes += 1
        self.drop(request_id)
        self._asking.pop(request_id, None)
