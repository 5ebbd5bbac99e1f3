"""A clip's bytes as they come from upstream, counted.

Belongs here: reading one body to its proper end, and letting go of it. Must not know: where the
body was had from, or where its bytes go.
"""

from __future__ import annotations

import asyncio

import aiohttp

from proxy.errors import SourceChanged, SourceUnavailable
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
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise SourceChanged("The clip's source sends more bytes than it announced.")
            if not data and self._left:
                raise SourceUnavailable("The clip's source ended the clip early.")
        if not data:
            self._give_slot_back()
        return data

    async def close(self) -> None:
        """Let go of the connection: kept for the next request if read to the end, else closed."""
        self._response.close()
        self._give_slot_back()

    def _give_slot_back(self) -> None:
        if self._slots is not None:
            self._slots.release()
            self._slots = None
