"""Bodies as they come from upstream: a clip's bytes, counted, and answers that must be small.

Belongs here: reading one body to its proper end, and letting go of it. Must not know: where the
body was had from, or where its bytes go.
"""

from __future__ import annotations

import asyncio

import aiohttp

from proxy.errors import SourceChanged, SourceUnavailable
from proxy.inflow import Inflow, Parsed, inflow_of
from proxy.records import BodyHead
from proxy.upstream.border import FOREIGN, broken


class UpstreamBody:
    """A clip's bytes as they arrive: the ByteStream of upstream."""

    def __init__(
        self,
        head: BodyHead,
        response: aiohttp.ClientResponse,
        stall: float,
        slots: asyncio.Semaphore,
    ) -> None:
        self.head = head
        self._response = response
        self._content = response.content
        self._stall = stall
        self._slots: asyncio.Semaphore | None = slots
        self._left = None if head.stop is None else head.stop - head.start
        self._inflow: Inflow | Parsed | None = None

    async def read(self) -> bytes:
        """Return what has arrived, at most twice the read buffer; b"" at the proper end.

        Raises SourceTimeout when nothing comes for the stall timeout, SourceUnavailable when the
        body is reset or ends early, SourceChanged when it is longer than announced.
        """
        try:
            async with asyncio.timeout(self._stall):
                data = await self._content.readany()
        except FOREIGN as error:
            raise broken(error) from error
        self._count(len(data))
        return data

    async def offer(self, buffer: memoryview) -> None:
        """See `DirectStream.offer`; not to be mixed with `read`. Raises as `read` does."""
        if self._inflow is None:
            self._inflow = inflow_of(self._response, self._left)
        try:
            async with asyncio.timeout(self._stall):
                await self._inflow.offer(buffer)
        except FOREIGN as error:
            raise broken(error) from error

    def take(self) -> int:
        """See `DirectStream.take`. Raises SourceUnavailable and SourceChanged as `read` does."""
        count = 0 if self._inflow is None else self._inflow.take()
        self._count(count)
        return count

    def _count(self, count: int) -> None:
        if self._left is not None:
            self._left -= count
            if self._left < 0:
                raise SourceChanged("The clip's source sends more bytes than it announced.")
            if not count and self._left:
                raise SourceUnavailable("The clip's source ended the clip early.")
        if not count:
            self._give_slot_back()

    async def close(self) -> None:
        """Let go of the connection: kept for the next request if read to the end, else closed."""
        self._response.close()
        self._give_slot_back()

    def _give_slot_back(self) -> None:
        if self._slots is not None:
            self._slots.release()
            self._slots = None


async def read_small(response: aiohttp.ClientResponse, most: int, too_large: str) -> bytes:
    """Read a whole body of at most `most` bytes; `too_large` is said of any other.

    Raises SourceUnavailable for that, and what aiohttp raises.
    """
    pieces, size = [], 0
    while piece := await response.content.readany():
        pieces.append(piece)
        size += len(piece)
        if size > most:
            response.close()
            raise SourceUnavailable(too_large)
    return b"".join(pieces)
