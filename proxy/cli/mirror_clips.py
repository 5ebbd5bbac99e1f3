"""Which clips `firstview mirror` means: those with the given ids, or all that fit.

Belongs here: going through them page by page. Must not know: what becomes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from proxy.catalog.search import Search
from proxy.catalog.sweeping import Sweeping
from proxy.jobs.backfill import PAGE
from proxy.jobs.tally import UNKNOWN, Tally
from proxy.records import Generation, Status


class NamedClips:
    """The clips with these ids; those that the catalog does not know are failures at once."""

    def __init__(self, ids: Sequence[str], sweeping: Sweeping, tally: Tally) -> None:
        """Take the ids, each once."""
        self._ids = ids
        self._sweeping = sweeping
        self._tally = tally
        self._reached = 0

    async def next(self) -> Sequence[Generation] | None:
        """Return some more, None after the last. Raises CatalogUnavailable."""
        some = self._ids[self._reached : self._reached + PAGE]
        if not some:
            return None
        found = await self._sweeping.meanings(some)
        self._reached += len(some)
        for request_id in some:
            if request_id not in found:
                self._tally.fail(request_id, UNKNOWN)
        return [found[request_id] for request_id in some if request_id in found]


class AllClips:
    """All clips that are available and not stored, newest first."""

    def __init__(self, search: Search, *, model: str | None, since: datetime | None) -> None:
        """Narrow them to a model, and to those made since then."""
        self._search = search
        self._model = model
        self._since = since
        self._after: str | None = None
        self._at_end = False

    async def next(self) -> Sequence[Generation] | None:
        """Return some more, None after the last. Raises CatalogUnavailable."""
        if self._at_end:
            return None
        page = await self._search.find(
            status=Status.AVAILABLE,
            model=self._model,
            since=self._since,
            after=self._after,
            limit=PAGE,
        )
        self._after = page.next
        self._at_end = page.next is None
        return page.items
