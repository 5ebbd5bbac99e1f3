"""Bodies read past aiohttp's parser, over plain connections and TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from proxy.inflow import Inflow, inflow_of
from tests.fakes.fal import make_clip
from tests.fakes.tls import self_signed

DATA = make_clip(3_000_000, seed=1)


class Site:
    """A server with one long body, which may break it off."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.cut = len(DATA)
        self.peers: set[object] = set()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        reply = web.StreamResponse(headers={"Content-Length": str(len(DATA))})
        await reply.prepare(request)
        await reply.write(DATA[: self.cut])
        if self.cut < len(DATA):
            request.transport.close()
        return reply


@pytest_asyncio.fixture(params=["plain", "tls"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    context = self_signed(tmp_path) if request.param == "tls" else None
    site = Site("")
    async with AsyncExitStack() as stack:
        runner = web.ServerRunner(web.Server(site.answer))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        where = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await where.start()
        port = runner.addresses[0][1]
        site.base = f"{'http' if context is None else 'https'}://127.0.0.1:{port}/"
        yield site


@pytest.fixture
def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest_asyncio.fixture
async def session(trusting: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting)) as session:
        yield session


async def read(inflow: Inflow, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    await inflow.offer(buffer)
    return bytes(buffer[: inflow.take()])


async def read_until_it_breaks(inflow: Inflow, arrived: bytearray) -> None:
    while piece := await read(inflow, 100_000):
        arrived += piece


async def test_a_body_arrives_byte_for_byte_whatever_the_buffers_size(
    site: Site, session: aiohttp.ClientSession
) -> None:
    for size in (10_007, 262_144, 4_000_000):
        async with session.get(site.base) as response:
            inflow = inflow_of(response, len(DATA))
            assert isinstance(inflow, Inflow)
            arrived = b""
            while piece := await read(inflow, size):
                arrived += piece
            assert arrived == DATA
            assert await read(inflow, size) == b""
    assert len(site.peers) == 1  # each body's end left its connection fit for the next


async def test_what_comes_while_nobody_reads_waits(
    site: Site, session: aiohttp.ClientSession
) -> None:
    async with session.get(site.base) as response:
        inflow = inflow_of(response, len(DATA))
        assert isinstance(inflow, Inflow)
        arrived = b""
        while piece := await read(inflow, 100_000):
            arrived += piece
            await asyncio.sleep(0.002)
        assert arrived == DATA


async def test_nothing_comes_into_the_buffer_of_a_reader_who_was_cancelled(
    site: Site, session: aiohttp.ClientSession
) -> None:
    async with session.get(site.base) as response:
        inflow = inflow_of(response, len(DATA))
        assert isinstance(inflow, Inflow)
        buffer, cancelled = bytearray(100_000), False
        while not cancelled and await read(inflow, 100_000):
            waiting = asyncio.ensure_future(inflow.offer(memoryview(buffer)))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
            cancelled = waiting.cancelled()
        held = bytes(buffer)
        await asyncio.sleep(0.01)
        assert bytes(buffer) == held


async def test_a_connection_that_ends_early_is_an_error_after_its_last_byte(
    site: Site, session: aiohttp.ClientSession
) -> None:
    site.cut = 2_000_000
    async with session.get(site.base) as response:
        inflow = inflow_of(response, len(DATA))
        assert isinstance(inflow, Inflow)
        arrived = bytearray()
        with pytest.raises(OSError, match=r"ended before|reset"):
            await read_until_it_breaks(inflow, arrived)
        assert DATA.startswith(arrived)
        assert len(arrived) >= 1_000_000
    site.cut = len(DATA)
    async with session.get(site.base) as response:
        assert await response.read() == DATA
