"""The bytes of a long HTTP body, from aiohttp's connection straight into the reader's own memory.

aiohttp's parser makes a `bytes` of every piece that arrives, copies it, queues it, and joins what
has queued up: three copies, and a wake-up for each piece. A body whose length is known needs no
parser. So once aiohttp has read the head, its connection gets another protocol, up to the body's
last byte, and then its own again: the connection is used for the next request as ever.

Belongs here: that exchange, and counting bytes. Must not know: whose body it is, what is asked, or
whose errors stand for a connection that broke.
"""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp.client_proto import ResponseHandler

_SPARE = 64 * 1024
"""Bytes that are taken at most while nobody is reading, before the connection is left alone."""
_NOTHING = memoryview(b"")


class Inflow(asyncio.BufferedProtocol):
    """The rest of one body, on its way into the buffers that its one reader offers."""

    def __init__(
        self,
        content: aiohttp.StreamReader,
        handler: ResponseHandler,
        transport: asyncio.Transport,
        left: int,
    ) -> None:
        """Take a connection that is paused, `left` bytes of whose body are to come."""
        self._content = content
        self._handler = handler
        self._transport = transport
        self._early = _NOTHING
        self._spare = _NOTHING
        self._buffer = _NOTHING
        self._filled = 0
        self._coming = left
        self._running = False
        self._handed_back = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @classmethod
    def take_over(cls, response: aiohttp.ClientResponse, left: int) -> Inflow | None:
        """Read on past aiohttp, where `left` bytes of the body have not been read yet.

        None if it cannot be: the body is framed by something else than its length, or has come to
        its end, or broke; or what has come already is more than is left.
        """
        connection, content = response.connection, response.content
        handler = None if connection is None else connection.protocol
        transport = None if connection is None else connection.transport
        framed = "Content-Length" in response.headers
        if handler is None or transport is None or not framed or transport.is_closing():
            return None
        if content.is_eof() or content.exception() is not None:
            return None
        if "Transfer-Encoding" in response.headers or "Content-Encoding" in response.headers:
            return None
        early = _drained(content)
        self = cls(content, handler, transport, left - len(early))
        self._early = memoryview(early)
        if self._coming <= 0 or content.is_eof():
            self._coming, self._handed_back = 0, True
            return self
        handler.read_timeout = None  # whoever reads here has a clock of its own
        handler.start_timeout()
        transport.pause_reading()
        transport.set_protocol(self)
        return self

    async def offer(self, buffer: memoryview) -> None:
        """Let bytes into a buffer, and wait until there is one at least, or the proper end.

        More may follow until `take`, which has to be called next; a reader who is cancelled takes
        the buffer back. Raises OSError when the connection is lost before the end.
        """
        if self._early:
            self._filled = min(len(buffer), len(self._early))
            buffer[: self._filled] = self._early[: self._filled]
            self._early = self._early[self._filled :]
            return
        self._buffer, self._filled = buffer, 0
        if self._coming == 0:
            return
        self._spare = _NOTHING
        if self._failure is not None:
            raise self._failure
        if not self._running:
            self._running = True
            self._transport.resume_reading()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        except BaseException:
            self.take()
            raise
        finally:
            self._waiter = None

    def take(self) -> int:
        """Take back the buffer that was offered; how many bytes it holds, 0 at the proper end."""
        count, self._filled, self._buffer = self._filled, 0, _NOTHING
        if self._coming == 0 and not self._early:
            self._hand_back()
        return count

    def _hand_back(self) -> None:
        """Give aiohttp its connection again, as after any other body."""
        if self._handed_back or self._failure is not None:
            return
        self._handed_back = True
        if not self._transport.is_closing():
            self._transport.set_protocol(self._handler)
            self._content.feed_eof()

    # -- what the transport calls ---

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - there is what there is
        """Where the next bytes go."""
        room = self._buffer[self._filled :]
        if not room:  # nobody is reading just now
            room = self._spare = memoryview(bytearray(_SPARE))
        return room[: self._coming]

    def buffer_updated(self, nbytes: int) -> None:
        """That many bytes have come."""
        self._coming -= nbytes
        if self._spare:
            self._early, self._spare = self._spare[:nbytes], _NOTHING
        else:
            self._filled += nbytes
        if self._coming == 0 or self._filled == len(self._buffer):
            self._pause()
        self._wake()

    def eof_received(self) -> None:
        """No more will come; the transport closes itself."""
        self._handler.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let both the reader and aiohttp know."""
        self._running = False
        lost = ConnectionResetError("the connection ended before the body did")
        self._failure = exc if isinstance(exc, OSError) else lost
        if self._waiter is not None and not self._waiter.done() and self._coming:
            self._waiter.set_exception(self._failure)
        self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        """Nothing is written while a body is read."""

    def resume_writing(self) -> None:
        """Nothing is written while a body is read."""

    def _pause(self) -> None:
        self._running = False
        self._transport.pause_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Parsed:
    """The same for a body that only aiohttp can read: in chunks, or up to the connection's end."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        """Take what aiohttp's parser fills."""
        self._content = content
        self._rest = _NOTHING
        self._filled = 0

    async def offer(self, buffer: memoryview) -> None:
        """See `Inflow.offer`. Raises what aiohttp raises."""
        if not self._rest:
            self._rest = memoryview(await self._content.readany())
        count = self._filled = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]

    def take(self) -> int:
        """See `Inflow.take`."""
        count, self._filled = self._filled, 0
        return count


def inflow_of(response: aiohttp.ClientResponse, left: int | None) -> Inflow | Parsed:
    """The best way to read the rest of a body, `left` bytes of it if that is known."""
    direct = None if left is None else Inflow.take_over(response, left)
    return direct or Parsed(response.content)


def _drained(content: aiohttp.StreamReader) -> bytes:
    """What aiohttp has read already, its parser's rest included."""
    pieces = []
    while piece := content.read_nowait():
        pieces.append(piece)
    return b"".join(pieces)
