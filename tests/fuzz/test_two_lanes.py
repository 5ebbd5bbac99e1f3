"""Both lanes of the public listener say the same, byte for byte, whatever they are asked.

One application behind two listeners: one with the lane for plain hits, one with aiohttp's alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from proxy.delivery.send import Sender
from proxy.web import exchange
from proxy.web.connection import Connection
from proxy.web.hits import Hits
from proxy.web.listener import Listener
from proxy.web.public import Public
from proxy.web.videos import Videos
from tests.fakes.fal.media import make_clip
from tests.fixtures.origin import Origin
from tests.fuzz.odd_requests import Client, Sending

DATA = make_clip(40_000, 7)  # larger than a body that goes out in one call with its head
CLIENTS = 60
"""Connections per seed, each with up to `LENGTH` sendings."""
LENGTH = 20

# All that may differ from one moment to the next. A boundary is random, as nobody may guess it.
_OF_THE_MOMENT = re.compile(
    rb"(?<=\r\nDate: )[^\r]+|(?<=;dur=)[0-9.]+|(?<=boundary=)[0-9a-f]{32}"
    rb"|(?<=--)[0-9a-f]{32}(?=(?:--)?\r\n)|[0-9a-f]{8}-f[0-9a-f]{6}(?![0-9a-f])"
)


class Counting(Hits):
    """The lane for plain hits, which counts what it answered."""

    answered = 0

    def answer(self, connection: Connection, data: bytes) -> bool:
        done = super().answer(connection, data)
        self.answered += done
        return done


@dataclass
class Talk:
    """A connection, and all that came of it."""

    sock: socket.socket
    heard: bytearray = field(default_factory=bytearray)
    _read: int = 0

    async def say(self, sending: Sending) -> bool:
        """Send it, and read its replies; False if the connection has ended."""
        loop = asyncio.get_running_loop()
        for piece in sending.pieces:
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(self.sock, piece)
            for _ in range(3 if len(sending.pieces) > 1 else 0):
                await asyncio.sleep(0)
        return all([await self._reply(method) for method in sending.methods])

    async def _reply(self, method: str) -> bool:
        while (end := self.heard.find(b"\r\n\r\n", self._read)) < 0:
            if not await self._hear():
                return False
        head = bytes(self.heard[self._read : end])
        self._read = end + 4
        status = int(head.split(b" ", 2)[1])
        if status == 100:
            return await self._reply(method)
        length = re.search(rb"Content-Length: ([0-9]+)", head)
        if method != "HEAD" and status not in {204, 304} and length is not None:
            self._read += int(length[1])
        while len(self.heard) < self._read:
            if not await self._hear():
                return False
        return b"\r\nConnection: close" not in head

    async def _hear(self) -> bool:
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 18)
        except ConnectionResetError:
            return False
        self.heard += data
        return bool(data)


@contextlib.asynccontextmanager
async def both_lanes(origin: Origin) -> AsyncIterator[tuple[int, int, Counting]]:
    """Ports of a listener with both lanes, and of one with aiohttp's alone."""
    app = origin.app
    settings, metrics = app.settings, app.metrics
    videos = Videos(settings, app.locator, Sender(settings, app.clock, metrics), metrics)
    public = Public(videos, cast("Any", None), metrics)  # no webhooks
    hits = Counting(settings, app.locator, videos.policy, metrics)
    listeners = [
        Listener(public, settings, metrics, hits),
        Listener(public, settings, metrics),
    ]
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(each, "127.0.0.1", 0) for each in listeners]
    try:
        both, alone = (server.sockets[0].getsockname()[1] for server in servers)
        yield both, alone, hits
    finally:
        for server, listener in zip(servers, listeners, strict=True):
            server.close()
            await listener.shutdown(1.0)


async def talk(port: int, sendings: list[Sending]) -> bytes:
    """Have a conversation; return what was heard, but for what is of the moment."""
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        heard = Talk(sock)
        for number, sending in enumerate(sendings):
            if not await heard.say(sending):
                heard.heard += b"<ended after %d>" % number
                break
    return _OF_THE_MOMENT.sub(b"*", bytes(heard.heard))


@pytest.fixture
async def warm(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Origin:
    """A clip that is open; names of exchanges have one length, which problem documents show."""
    monkeypatch.setattr(exchange, "_COUNT", itertools.count(0xF000000))
    await origin.clip("clip", DATA)
    await origin.get("clip")
    await origin.stored("clip")
    await origin.get("clip")
    return origin


@pytest.mark.parametrize("seed", range(4))
async def test_both_lanes_answer_alike(warm: Origin, seed: int) -> None:
    response, body = await warm.get("clip")
    assert body == DATA
    etag, modified = response.headers["ETag"].strip('"'), response.headers["Last-Modified"]
    async with both_lanes(warm) as (both, alone, hits):
        requests = 0
        for number in range(CLIENTS):
            sendings = Client(seed * CLIENTS + number, etag, modified).conversation(LENGTH)
            requests += sum(len(sending.methods) for sending in sendings)
            assert await talk(both, sendings) == await talk(alone, sendings), sendings
        assert (
            hits.answered > requests / 10
        )  # or it would prove nothing; odd requests end many a talk
