"""Whereabouts: what the catalog says of an id, and the whole clip of it that is on this machine.

Belongs here: asking both at once, and that they agree with each other. Must not know: sources,
flights, who may see what.
"""

from __future__ import annotations

from typing import NamedTuple

from proxy.delivery import identity
from proxy.delivery.forgetting import Forgetting
from proxy.delivery.near import Near
from proxy.delivery.remembered import Remembered
from proxy.errors import CatalogError
from proxy.records import Generation
from proxy.storage.open_files import OpenFile

PATIENCE = 1.0
"""Seconds that a clip which is here waits to hear from a hanging catalog if it is still meant."""
LOOKS = 4
"""Times that somebody looks who is overtaken by changes of the catalog, mostly of other ids."""


class Found(NamedTuple):
    """The row of an id, or the `outage` that keeps it, and the clip's file if that is here.

    The file is acquired for whoever looked.
    """

    row: Generation | None
    outage: CatalogError | None
    file: OpenFile | None


class Whereabouts:
    """Looks for clips here. Whoever is given a file releases it."""

    def __init__(self, near: Near, rows: Remembered, forgetting: Forgetting) -> None:
        """Take the places of this machine and the catalog."""
        self._near = near
        self._rows = rows
        self._forgetting = forgetting

    async def look(self, request_id: str) -> Found:
        """Ask the catalog, and look for the whole clip here.

        A row that was read before its id was re-pointed must not bring the former clip back, so
        whoever was overtaken looks again.
        """
        row, outage, file = None, None, None
        for _ in range(LOOKS):
            changes = self._rows.changes
            row, outage, seen = await self._row_and_glance(request_id)
            file = await self._local(request_id, row, changes) if seen else None
            self._forgetting.heed()
            if changes == self._rows.changes and file is not None:
                self._rows.believe(request_id, row, file.facts)
                break
            if changes == self._rows.changes and (row is not None or request_id not in self._rows):
                break
            self._rows.drop(request_id)  # overtaken, or of a file that is gone by now
            if file is not None:
                file.release()
                file = None
        return Found(row, outage, file)

    async def row(self, request_id: str) -> tuple[Generation | None, CatalogError | None]:
        """The row of an id alone, or why it cannot be had."""
        return await self._rows.ask(
            request_id, PATIENCE, unless=lambda: self._is_nowhere(request_id)
        )

    def arrived(self, request_id: str) -> OpenFile | None:
        """A clip that became whole here while its places were being looked into.

        Asked without an await before a fill is started, so that a clip is never fetched again by
        a viewer who looked for it just before its fill ended.
        """
        file = self._near.present(request_id)
        return None if file is None else file.acquire()

    async def _row_and_glance(
        self, request_id: str
    ) -> tuple[Generation | None, CatalogError | None, bool]:
        """Glance at the places here and ask the catalog; whether to open those places.

        A clip that is nowhere costs no further wait: its first byte needs every millisecond.
        """
        seen = request_id in self._rows or await self._near.glance(request_id)
        row, outage = await self.row(request_id)
        seen = seen or not self._near.is_surely_fetched(row)
        return row, outage, seen or self._near.present(request_id) is not None

    async def _is_nowhere(self, request_id: str) -> bool:
        return not await self._near.has(request_id)

    async def _local(
        self, request_id: str, row: Generation | None, changes: int
    ) -> OpenFile | None:
        """A whole clip on this machine that the catalog still means.

        Another clip than the row's is forgotten, unless it is the row that is of yesterday.
        """
        file = await self._near.open(request_id, row)
        if file is not None and row is not None and not identity.same_clip(row, file.facts):
            file.release()
            if changes == self._rows.changes:
                await self._forgetting.forget(request_id)
            return None
        return file
