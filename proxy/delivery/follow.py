"""Following: viewers here read what another process of this machine is bringing in.

Belongs here: looking at its file every few milliseconds, once for all viewers of a clip. Must not
know: sources, HTTP, what is done when the file becomes ours.
"""

from __future__ import annotations

import asyncio
from typing import Final

from proxy.clock import Clock
from proxy.delivery import identity
from proxy.delivery.flights import Flight
from proxy.delivery.following import Step, next_step, pause
from proxy.delivery.sources import Source
from proxy.delivery.spool import Spool
from proxy.errors import SourceChanged
from proxy.records import ClipFacts
from proxy.storage import spool_file
from proxy.storage.file_lock import try_lock

_UNSAID_FOR: Final = 5.0
"""Seconds that a whole clip of which nothing is said may take to be moved to its last place."""


class Followers:
    """All clips of this process that another one is bringing in."""

    def __init__(self, clock: Clock) -> None:
        """Begin with none."""
        self._clock = clock
        self._count = 0

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    async def follow(self, flight: Flight, source: Source, spool: Spool) -> Step:
        """Let a flight's viewers read another process's file, up to where that leads.

        Returns any step but WAIT; the flight is ready by then if its facts were ever told. Raises
        SourceChanged if the file is of another clip than the one that is wanted here.
        """
        self._count += 1
        wait, deadline = 0.0, self._clock.monotonic() + _UNSAID_FOR
        try:
            while True:
                before = spool.mark.readable
                step = await self.look(flight, source, spool)
                if step is Step.WHOLE and flight.facts is None:  # and about to be told of
                    step = Step.WAIT if self._clock.monotonic() < deadline else Step.GONE
                if step is not Step.WAIT:
                    return step
                if flight.facts is not None and not flight.is_unwatched_mirror:
                    await spool.knock()
                grew = spool.mark.readable > before
                wait = pause(wait, grew=grew, followed=self._count)
                await asyncio.sleep(wait)
        finally:
            spool.stop_knocking()
            self._count -= 1

    async def look(self, flight: Flight, source: Source, spool: Spool) -> Step:
        """Look once, let viewers have what is there, and say what that leads to."""
        locked = try_lock(spool.fd)
        look = spool_file.look(spool.fd)
        if flight.facts is None and look.size:
            await self._meet(flight, source, spool)
        unsaid = look.whole and flight.facts is None
        named = (locked or unsaid) and await spool.still_named()
        step = next_step(look, locked=locked, named=named)
        if flight.facts is None:  # without facts a whole clip is only found in its last place
            return Step.GONE if unsaid and not named else step
        if step is Step.WHOLE:
            spool.found_whole(flight.facts.length)
        else:
            spool.follow(look.size)
        return step

    @staticmethod
    async def _meet(flight: Flight, source: Source, spool: Spool) -> None:
        """Read what the clip is, if that has been said yet, and let the viewers begin."""
        said = await spool.beside()
        if said is None:
            return
        if not is_meant(source, said.facts):
            raise SourceChanged("another process is fetching another clip under this id")
        head = None if said.growth is None else said.growth.head
        flight.source, flight.validator = source, None if head is None else head.validator
        flight.followed = True
        spool.announce(said.facts.length)
        flight.board(spool)
        flight.land(said.facts)


def is_meant(source: Source, facts: ClipFacts) -> bool:
    """Whether the catalog still means the clip of these facts, as far as its row here knows."""
    return source.row is None or identity.same_clip(source.row, facts)
