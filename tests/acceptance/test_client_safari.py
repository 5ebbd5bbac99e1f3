"""A Safari-like player: it probes two bytes, opens, reads a little, aborts and opens again.

Such a player made 285 requests in 14.5 minutes of a server that answered each of them from the
source, which cost 4 to 6 times the clip's bytes (rapidbay#89; number 42 of the collected faults).
"""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.fal import Behaviour, make_clip
from tests.fixtures.clients import KIB, MIB
from tests.fixtures.origin import MakeOrigin, Origin, wait_for

SIZE = 3 * MIB
RATE = 1.5 * MIB
OPENED = 48
IN_KERNEL = 512 * KIB
"""Bytes that a source may have sent, and the machine's own sockets hold, when nobody reads on."""


async def open_and_abort(origin: Origin, name: str, start: int, count: int) -> tuple[bytes, str]:
    """Ask for all from `start` on, read `count` bytes, and leave without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", origin.app.public_port)
    try:
        writer.write(
            f"GET /videos/{name}.mp4 HTTP/1.1\r\nHost: clips.example\r\n"
            f"Range: bytes={start}-\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
            "X-Playback-Session-Id: 0A1B2C3D\r\nConnection: keep-alive\r\n\r\n".encode()
        )
        async with asyncio.timeout(20):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            return await reader.readexactly(count), head
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "source",
    [Behaviour(rate=RATE), Behaviour(rate=RATE, ranges="ignore")],
    ids=["throttled", "without-ranges"],
)
async def test_a_player_that_aborts_and_reopens_costs_at_most_twice_the_clip(
    make_origin: MakeOrigin, source: Behaviour
) -> None:
    """The bound: while the fill runs, the player's one open request can be beside it.

    Both go at the source's speed, so together they are at most twice the clip; afterwards
    nothing is asked of the source at all.
    """
    origin = await make_origin(seek_ahead="128KiB")
    data = make_clip(SIZE, 42)
    path = await origin.clip("safari", data, source)
    _, probe = await origin.get("safari", {"Range": "bytes=0-1"})
    assert probe == data[:2]
    tags = set()
    for number in range(OPENED):
        # Back and forth, near and far, as a viewer who looks for a scene.
        start = (number * 7 % OPENED) * SIZE // OPENED
        piece, head = await open_and_abort(origin, "safari", start, 24 * KIB)
        assert head.startswith("HTTP/1.1 206 ")
        assert f"\r\nContent-Range: bytes {start}-{SIZE - 1}/{SIZE}\r\n" in head
        assert f"\r\nContent-Length: {SIZE - start}\r\n" in head
        assert piece == data[start : start + 24 * KIB], start
        tags.add(head.partition("ETag: ")[2].partition("\r\n")[0])
    assert len(tags) == 1
    await origin.stored("safari")

    async def nothing_is_under_way() -> bool:
        return all(get.last_byte_at is not None or get.aborted for get in origin.fal.gets(path))

    await wait_for(nothing_is_under_way)
    gets = origin.fal.gets(path)
    assert sum(get.sent for get in gets) <= 2 * SIZE + IN_KERNEL
    assert len([get for get in gets if get.range is None]) == 1
    assert len(gets) <= 1 + OPENED
    before = len(gets)
    assert (await origin.get("safari"))[1] == data
    assert origin.gets("safari") == before


async def test_what_an_aborted_player_left_behind_is_closed_at_the_source(
    make_origin: MakeOrigin,
) -> None:
    origin = await make_origin(seek_ahead="128KiB", drain_timeout="100ms")
    data = make_clip(SIZE, 43)
    path = await origin.clip("left", data, Behaviour(rate=256 * KIB))
    for start in (SIZE // 2, SIZE // 3, SIZE - 300 * KIB):
        piece, _ = await open_and_abort(origin, "left", start, 8 * KIB)
        assert piece == data[start : start + 8 * KIB]

    async def only_the_fill_is_left() -> bool:
        beside = [get for get in origin.fal.gets(path) if get.range is not None]
        return len(beside) == 3 and all(get.aborted for get in beside)

    await wait_for(only_the_fill_is_left)
    [filling] = [get for get in origin.fal.gets(path) if get.range is None]
    assert not filling.aborted
    # The fill itself goes on; the test does not wait for the rest of it.
    assert filling.sent < SIZE
