"""A Cloudflare-like edge: aligned ranges side by side, kept-alive connections, long requests."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.fakes.fal import Behaviour, make_clip
from tests.fixtures.clients import KIB, MIB, THROTTLED, WITHOUT_RANGES
from tests.fixtures.origin import MakeOrigin, Origin

SIZE = 3 * MIB + 4321
EDGE = {
    "Accept-Encoding": "br, gzip",
    "CDN-Loop": "cloudflare; loops=1",
    "CF-Connecting-IP": "203.0.113.7",
    "CF-Ray": "8f2a1b3c4d5e6f70-FRA",
    "CF-Visitor": '{"scheme":"https"}',
    "Connection": "Keep-Alive",
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
}


def slices(size: int = SIZE) -> list[tuple[int, int]]:
    return [(start, min(start + MIB, size)) for start in range(0, size, MIB)]


def assert_fit_for_an_edge(headers: Any, length: int) -> None:
    assert headers["Content-Length"] == str(length)
    assert headers["ETag"].startswith('"')
    assert "s-maxage" not in headers["Cache-Control"]
    assert int(headers["Cache-Control"].partition("max-age=")[2].partition(",")[0]) >= 36_000
    assert " " not in headers["Cache-Tag"]
    for name in ("Transfer-Encoding", "Content-Encoding", "Set-Cookie", "Vary"):
        assert name not in headers


async def fetch(
    client: aiohttp.ClientSession, url: str, **fields: str
) -> tuple[aiohttp.ClientResponse, bytes]:
    async with asyncio.timeout(20), client.get(url, headers={**EDGE, **fields}) as response:
        return response, await response.read()


@pytest.mark.parametrize("source", [THROTTLED, WITHOUT_RANGES], ids=["throttled", "without-ranges"])
@pytest.mark.parametrize("seek_ahead", ["64KiB", "4MiB"])
async def test_aligned_slices_side_by_side_make_up_a_cold_clip(
    make_origin: MakeOrigin, source: Behaviour, seek_ahead: str
) -> None:
    origin = await make_origin(seek_ahead=seek_ahead)
    data = make_clip(SIZE, 5)
    await origin.clip("sliced", data, source)
    url = origin.url("sliced")
    tags = set()

    async def whole(client: aiohttp.ClientSession) -> bytes:
        asked = [fetch(client, url, Range=f"bytes={a}-{b - 1}") for a, b in slices()]
        replies = await asyncio.gather(*asked)
        for (reply, _), (start, stop) in zip(replies, slices(), strict=True):
            assert reply.status == 206
            assert reply.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
            assert_fit_for_an_edge(reply.headers, stop - start)
            tags.add(reply.headers["ETag"])
        return b"".join(body for _, body in replies)

    # Two connections for four slices: the second slice of each comes while the fill runs.
    async with _edge(connections=2) as client:
        assert await whole(client) == data
        await origin.stored("sliced")
        assert await whole(client) == data
        reply, body = await fetch(client, url)
    assert body == data
    assert_fit_for_an_edge(reply.headers, SIZE)
    assert {*tags, reply.headers["ETag"]} == {reply.headers["ETag"]}


async def test_an_edge_that_asks_for_the_whole_gets_it_plain_cold_and_warm(origin: Origin) -> None:
    data = make_clip(SIZE, 6)
    await origin.clip("plain", data, THROTTLED)
    async with _edge() as client:
        cold, first = await fetch(client, origin.url("plain"))
        await origin.stored("plain")
        warm, second = await fetch(client, origin.url("plain"))
    assert first == second == data
    assert cold.headers["ETag"] == warm.headers["ETag"]
    assert cold.headers["Cache-Control"] == warm.headers["Cache-Control"]
    for reply in (cold, warm):
        assert_fit_for_an_edge(reply.headers, SIZE)


async def test_an_edge_revalidates_what_it_holds(origin: Origin) -> None:
    data = make_clip(SIZE, 8)
    await origin.clip("held", data, THROTTLED)
    async with _edge() as client:
        cold, body = await fetch(client, origin.url("held"))
        assert body == data
        tag = cold.headers["ETag"]
        for fields in (
            {"If-None-Match": tag},
            {"If-None-Match": f'"other", W/{tag}'},
            {"If-Modified-Since": cold.headers["Last-Modified"]},
            {"If-None-Match": tag, "Range": "bytes=0-1048575"},
        ):
            reply, body = await fetch(client, origin.url("held"), **fields)
            assert (reply.status, body) == (304, b""), fields
            assert reply.headers["ETag"] == tag
            assert reply.headers["Cache-Control"] == cold.headers["Cache-Control"]
            assert "Transfer-Encoding" not in reply.headers
        changed, body = await fetch(client, origin.url("held"), **{"If-None-Match": '"other"'})
        assert (changed.status, body) == (200, data)
        part, body = await fetch(
            client, origin.url("held"), **{"If-Range": tag, "Range": "bytes=0-99"}
        )
        assert (part.status, body) == (206, data[:100])


@pytest.mark.parametrize("cold", [True, False], ids=["cold", "warm"])
async def test_an_address_of_sixteen_kilobytes_is_that_clip(origin: Origin, cold: bool) -> None:
    data = make_clip(MIB, 9)
    await origin.clip("long", data)
    if not cold:
        await origin.get("long")
        await origin.stored("long")
    address = "/videos/long.mp4?q="
    query = "q=" + "x" * (16 * KIB - len(address))
    async with _edge() as client:
        reply, body = await fetch(client, f"{origin.url('long')}?{query}")
    assert (reply.status, body) == (200, data)


_FIELDS_OF_ALL_SIZES = {
    "one long field": {"X-Long": "x" * 16_000},
    "seven of sixteen kilobytes": {f"X-Long-{n}": "x" * 16_000 for n in range(7)},
    "a hundred and twenty of a kilobyte": {f"X-Short-{n}": "x" * 1_000 for n in range(110)},
    "six hundred tiny ones": {f"X-Tiny-{n}": "x" for n in range(600)},
}


@pytest.mark.parametrize("extra", _FIELDS_OF_ALL_SIZES.values(), ids=list(_FIELDS_OF_ALL_SIZES))
async def test_a_request_with_up_to_128_kilobytes_of_fields_is_answered(
    origin: Origin, extra: dict[str, str]
) -> None:
    data = make_clip(MIB, 10)
    await origin.clip("wordy", data)
    async with _edge() as client:
        for asked, expected in (("bytes=0-1048575", data), ("bytes=-10", data[-10:])):
            reply, body = await fetch(client, origin.url("wordy"), Range=asked, **extra)
            assert (reply.status, body) == (206, expected)


@pytest.mark.parametrize(
    "extra",
    [
        {f"X-Long-{n}": "x" * 16_000 for n in range(10)},
        {"X-Long": "x" * 20_000},
    ],
    ids=["too much in all", "one too long"],
)
async def test_a_request_with_more_than_that_is_told_so(
    origin: Origin, extra: dict[str, str]
) -> None:
    await origin.clip("wordier", make_clip(MIB, 11))
    async with _edge() as client:
        reply, body = await fetch(client, origin.url("wordier"), **extra)
    assert 400 <= reply.status < 500
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert b"type" in body
    assert reply.headers["Cache-Control"] == "no-store"


def _edge(connections: int = 4) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        auto_decompress=False,
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=900),
        skip_auto_headers=("Accept-Encoding", "User-Agent"),
        timeout=aiohttp.ClientTimeout(total=30),
    )


async def test_a_header_that_grows_past_the_limit_bit_by_bit_is_refused(origin: Origin) -> None:
    """In pieces as well as in one, and behind a request that is still being answered."""
    data = make_clip(MIB, 12)
    await origin.clip("endless", data, Behaviour(rate=MIB))
    line = b"GET /videos/endless.mp4 HTTP/1.1\r\nHost: clips.example\r\n"
    for first in (b"", line + b"\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", origin.app.public_port)
        writer.write(first + line)
        reading = asyncio.create_task(reader.read(-1))
        try:
            for number in range(40):
                if writer.transport.is_closing() or reading.done():
                    break
                writer.write(b"X-Much-%d: %s\r\n" % (number, b"x" * 8_000))
                await asyncio.sleep(0.005)
            async with asyncio.timeout(10):
                # The request never ends, and yet the connection does.
                got = await reading
        except ConnectionError:
            got = b""
        finally:
            writer.transport.abort()
        assert not got or b"HTTP/1.1 431 " in got or first
        assert got.count(b"HTTP/1.1 200 ") <= len(first)
    metric = origin.app.metrics.shed.labels("max_header_bytes")
    assert metric._value.get() == 2
