"""Clips that the bucket holds: noted together when several are stored at once.

Belongs here: one transaction for many clips, each of whose callers hears after it. Must not know:
who stored a clip, or where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import changes, rows
from proxy.catalog.engine import Catalog
from proxy.catalog.errands import Errands
from proxy.catalog.together import Together
from proxy.clock import Clock
from proxy.records import ClipFacts, Generation, MediaFacts

_AT_ONCE: Final = 64
_MOST_WAITING: Final = 4096
"""Clips that are stored and wait to be noted; there are never as many fills."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What is said of a clip that the bucket holds; see `Generations.mark_stored`."""

    request_id: str
    fal_url: str | None
    facts: ClipFacts
    sha256: str | None
    at: datetime
    media: MediaFacts | None

    def change(self, before: Generation | None, cdn_url: str) -> Generation | None:
        """What becomes of the row; None: the id points elsewhere by now."""
        after = changes.stored(
            before,
            self.request_id,
            self.facts,
            fal_url=self.fal_url,
            sha256=self.sha256,
            at=self.at,
            cdn_url=cdn_url,
        )
        return after and changes.measured(after, self.media)


class Storing:
    """Notes what is stored, and that its jobs are done."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        clip_url: Callable[[str], str],
        expires_after: timedelta | None,
        clock: Clock,
    ) -> None:
        """Take the open catalog and what new rows need."""
        self._catalog = catalog
        self._clip_url = clip_url
        self._expires_after = expires_after
        self._clock = clock
        self._together: Together[Stored, bool] = Together(
            self._write, most=_AT_ONCE, queue=_MOST_WAITING
        )

    async def note(self, said: Stored) -> bool:
        """Return, once that is durable, whether the id still means that clip.

        Raises CatalogUnavailable, and Overloaded when too many wait.
        """
        return await self._together.put(said)

    async def _write(self, said: list[Stored]) -> list[bool]:
        async def attempt(connection: AsyncConnection) -> list[bool]:
            before = await rows.lock(connection, {one.request_id for one in said})
            after, errands = dict(before), Errands(self._expires_after)
            meant = []
            for one in said:
                row = one.change(after.get(one.request_id), self._clip_url(one.request_id))
                meant.append(row is not None)
                if row is not None:
                    after[one.request_id] = row
                    errands.stored(before.get(one.request_id), row)
            await rows.write(connection, before, after)
            await errands.run(connection, self._clock.now())
            return meant

        return await rows.unraced(self._catalog, attempt)
