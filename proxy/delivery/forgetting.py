"""Forgetting: an id means another clip from now on, or none, and its former one is let go of here.

Belongs here: what has to be dropped, and heeding what other processes of this machine have
re-pointed or purged. Must not know: why, sources, viewers.
"""

from __future__ import annotations

import asyncio

from proxy.delivery.flights import Flight, Flights
from proxy.delivery.near import Near
from proxy.delivery.remembered import Remembered
from proxy.storage.forgets import Forgets


class Forgetting:
    """Drops what was remembered, what is on its way, and what lies here, in that order."""

    def __init__(self, rows: Remembered, flights: Flights, near: Near, forgets: Forgets) -> None:
        """Take all that may have something of a clip, and what tells of other processes."""
        self._rows = rows
        self._flights = flights
        self._near = near
        self._forgets = forgets
        self._letting_go: set[asyncio.Task[None]] = set()

    async def forget(self, request_id: str) -> None:
        """Serve nothing of the id's former clip from here on."""
        self._rows.drop(request_id)
        await self._flights.supersede(request_id)
        await self._near.forget(request_id)

    def heed(self) -> None:
        """Drop what another process of this machine has re-pointed or purged, before a reply."""
        if not self._forgets.is_news:
            return
        forgotten = self._forgets.news()
        if forgotten is None:  # too many to know
            self._rows.drop_all()
            self._near.let_go_of_all()
            return
        for request_id in forgotten:
            self._rows.changed(request_id)
            letting_go = asyncio.create_task(
                self._let_go(request_id, self._flights.cut(request_id))
            )
            self._letting_go.add(letting_go)
            letting_go.add_done_callback(self._letting_go.discard)

    async def _let_go(self, request_id: str, flight: Flight | None) -> None:
        await self._near.let_go(request_id)
        if flight is not None and flight.spool is not None:
            await flight.spool.remove()
