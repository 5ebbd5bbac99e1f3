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
from proxy.web.gate import Gate
from proxy.web.hits import Hits
from proxy.web.listener import Listener
from proxy.web.public import Public
from proxy.web.videos import Videos
from tests.fakes.fal.media import make_clip
from tests.fixtures.links import GATED, KEYS, expired, signed
from tests.fixtures.origin import MakeOrigin, Origin
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
    gate = Gate(settings, app.locator, app.clock)
    sender = Sender(settings, app.clock, metrics)
    videos = Videos(settings, app.locator, gate, sender, metrics)
    public = Public(videos, cast("Any", None), gate, metrics)  # no webhooks
    hits = Counting(settings, app.locator, gate, videos.policy, metrics)
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
    await make_warm(origin)
    return origin


async def make_warm(origin: Origin, **fields: str) -> tuple[str, str]:
    """Open the clip with requests that have these fields; returns its validators."""
    await origin.clip("clip", DATA)
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    url = origin.url("clip").removesuffix("/videos/clip.mp4") + signed("clip", url_safe=True)
    said = ("", "")
    for _ in range(2):
        async with origin.client.get(url, headers=named) as response:
            assert await response.read() == DATA
            said = response.headers["ETag"].strip('"'), response.headers["Last-Modified"]
        await origin.stored("clip")
    return said


def links_to_the_clip() -> list[str]:
    """Two that hold, and others."""
    good, safe = signed("clip"), signed("clip", url_safe=True)
    return [
        *(good, safe, expired("clip"), f"{good}&{good.partition('?')[2]}", f"{safe}&a=b"),
        *(signed("clip", "download=a"), signed("clip", "a=1"), f"{good}%20", f"{safe}=", safe[:-1]),
        *(good.replace("%", "%25"), good.replace("%2F", "/"), good.replace("verify", "Verify")),
        *(f"/videos/clip.mp4?{signed('other').partition('?')[2]}", safe.replace("clip", "%63lip")),
        *("/videos/other.mp4", f"/videos/clip.mp4?verify={'0' * 10}-{'A' * 43}"),
    ]


LOCKED = {"origin_secret": "the-newest-secret-of-the-edge,the-former-secret-of-the-edge"}
EDGE_FIELDS = [
    *("X-Firstview-Origin: the-newest-secret-of-the-edge", "X-Firstview-Origin: "),
    *("X-Firstview-Origin: the-former-secret-of-the-edge  ", "X-Firstview-Origin:x"),
    *("X-Firstview-Origin: the-newest-secret-of-the-edg", "X-Firstview-Origins: a"),
    "X-Firstview-Origin: the-newest-secret-of-the-edge\r\nX-Firstview-Origin: x",
    "X-Firstview-Origin: x\r\nX-Firstview-Origin: the-newest-secret-of-the-edge",
    "X-A: X-Firstview-Origin: the-newest-secret-of-the-edge",
]


WAYS = ["gated", "public with keys", "locked", "gated and locked"]


@pytest.mark.parametrize("how", WAYS)
async def test_both_lanes_let_in_alike(
    make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    await let_in_alike(make_origin, monkeypatch, how, seeds=20)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", WAYS)
async def test_both_lanes_let_many_in_alike(
    make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    await let_in_alike(make_origin, monkeypatch, how, seeds=1000)


async def let_in_alike(
    make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch, how: str, *, seeds: int
) -> None:
    monkeypatch.setattr(exchange, "_COUNT", itertools.count(0xF000000))
    settings: dict[str, Any] = GATED if "gated" in how else KEYS if "keys" in how else {}
    fields = EDGE_FIELDS if "locked" in how else []
    origin = await make_origin(**settings, **(LOCKED if fields else {}))
    name, _, value = EDGE_FIELDS[0].partition(": ")
    validators = await make_warm(origin, **({name: value} if fields else {}))
    async with both_lanes(origin) as (both, alone, hits):
        requests = 0
        for seed in range(seeds):
            links = links_to_the_clip if settings else None
            client = Client(seed, *validators, links=links, fields=fields)
            sendings = client.conversation(LENGTH)
            requests += sum(len(sending.methods) for sending in sendings)
            assert await talk(both, sendings) == await talk(alone, sendings), sendings
        assert hits.answered > requests / 20


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
