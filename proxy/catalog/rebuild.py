"""Rows out of what a bucket holds, when the catalog was lost or lags behind.

Belongs here: what an object makes of a row, and the transaction that writes many. Must not know:
any bucket, how an object says who it is, or which clip it is (whoever calls this does).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import changes, rows
from proxy.catalog.engine import Catalog
from proxy.catalog.errands import Errands
from proxy.clock import Clock
from proxy.records import ClipFacts, Generation


class Restored(StrEnum):
    """What an object did to the catalog."""

    CREATED = "created"
    STORED = "stored"
    UNCHANGED = "unchanged"
    OTHER = "other"
    """The row means another clip, and was left as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object that is a clip.

    `facts` says what it is to the row that there is, None where the row means another clip.
    `sha256` and `prompt_hash` are in hex; `at` is when the bucket got it.
    """

    request_id: str
    facts: Callable[[Generation | None], ClipFacts | None]
    sha256: str | None
    prompt_hash: str | None
    at: datetime


def restored(
    before: Generation | None, found: Found, *, cdn_url: str
) -> tuple[Restored, Generation | None]:
    """What becomes of a row, or of an id without one; the row keeps all that it knows."""
    facts = found.facts(before)
    if facts is None:
        return Restored.OTHER, before
    after = changes.stored(
        before,
        found.request_id,
        facts,
        fal_url=before.fal_url if before is not None else None,
        sha256=found.sha256,
        at=found.at,
        cdn_url=cdn_url,
    )
    if after is None:
        return Restored.OTHER, before
    after = replace(after, prompt_hash=after.prompt_hash or found.prompt_hash)
    if before is None:
        return Restored.CREATED, after
    return (Restored.UNCHANGED if after == before else Restored.STORED), after


class Rebuild:
    """Writes what was found; every method raises CatalogUnavailable."""

    def __init__(
        self, catalog: Catalog, *, clip_url: Callable[[str], str], clock: Clock | None = None
    ) -> None:
        """Take the open catalog; `clip_url` gives a clip's canonical public address."""
        self._catalog = catalog
        self._clip_url = clip_url
        self._clock = clock or Clock()

    async def write(self, objects: Sequence[Found]) -> list[Restored]:
        """Restore the rows of these objects, all or none, and say in their order what each did.

        A clip that is stored has no jobs any more.
        """

        async def attempt(connection: AsyncConnection) -> list[Restored]:
            before = await rows.lock(connection, {found.request_id for found in objects})
            outcomes, after = self._restored(before, objects)
            await rows.write(connection, before, after)
            errands = Errands()
            for request_id, row in after.items():
                errands.stored(before.get(request_id), row)
            await errands.run(connection, self._clock.now())
            return outcomes

        return await rows.unraced(self._catalog, attempt)

    async def preview(self, objects: Sequence[Found]) -> list[Restored]:
        """Say what `write` would do, and do nothing."""

        async def look(connection: AsyncConnection) -> list[Restored]:
            before = await rows.lock(connection, {found.request_id for found in objects})
            return self._restored(before, objects)[0]

        return await self._catalog.write(look)

    def _restored(
        self, before: dict[str, Generation], objects: Sequence[Found]
    ) -> tuple[list[Restored], dict[str, Generation]]:
        outcomes, after = [], {}
        for found in objects:
            request_id = found.request_id
            outcome, row = restored(
                before.get(request_id), found, cdn_url=self._clip_url(request_id)
            )
            outcomes.append(outcome)
            if row is not None and outcome is not Restored.OTHER:
                after[request_id] = row
        return outcomes, after
