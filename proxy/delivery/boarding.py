"""Boarding: a viewer waits until the reply from a fill can begin.

Belongs here: asking for a far range beside the fill, and whose answer begins the reply. Must not
know: where else the clip could be, how a fill works, how a reply is sent.
"""

from __future__ import annotations

import asyncio

from proxy.delivery.flights import Flight, told_length
from proxy.delivery.sources import Source
from proxy.delivery.view import Wanted, discard
from proxy.records import ByteStream, ClipFacts


async def board(
    flight: Flight, wanted: Wanted | None, seek_ahead: int, *, joined: bool
) -> tuple[ClipFacts, asyncio.Task[ByteStream] | None]:
    """Wait until a reply can begin; ask for a far range meanwhile, not afterwards.

    Returns the clip's facts, and the far range if one was asked for. `seek_ahead` is how many
    bytes in a range is far. Raises as `Flight.ready`.
    """
    early: asyncio.Task[ByteStream] | None = None
    source = flight.sources[0]
    if (
        not flight.is_ready
        and wanted is not None
        and wanted.is_far(seek_ahead)
        and source.seekable()
    ):
        early = asyncio.create_task(source.open(wanted.start, wanted.stop))
        if not joined:
            flight.give_way(early)
    try:
        return await _first_facts(flight, source, early), early
    except BaseException:
        if early is not None:
            discard(early)
        raise


async def _first_facts(
    flight: Flight, source: Source, early: asyncio.Task[ByteStream] | None
) -> ClipFacts:
    """Facts from the fill, or from the range beside it if that answers first."""
    if early is None:
        return await flight.ready()
    ready = asyncio.create_task(flight.ready())
    try:
        await asyncio.wait({ready, early}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done() and early.exception() is None:
            length = told_length(early.result())
            if length is not None:
                return source.facts(early.result().head, length)
        return await ready
    finally:
        ready.cancel()
