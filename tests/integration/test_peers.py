"""What went wrong elsewhere, where no other test shows it: see docs/peers.md for the whole list."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from tests.fakes.fal import Behaviour, Clip, make_clip
from tests.fixtures.looking import metric, nothing_is_left, path_of, viewers
from tests.fixtures.origin import MakeOrigin, Origin, wait_for
from tests.fixtures.raw import raw_client

MIB = 1024 * 1024
DATA = make_clip(2 * MIB, 110)


async def test_a_client_that_gives_up_early_has_its_first_bytes_by_then(origin: Origin) -> None:
    """Peers 9 (getnora-io/nora#1001): nothing was sent until all was there; 56 tries in 4 days."""
    hold = asyncio.Event()
    await origin.clip("clip", DATA, Behaviour(stall_at=MIB, stall_until=hold))
    for _ in range(5):
        async with raw_client(origin.app.public_port) as impatient:
            await impatient.ask(path_of("clip"))
            assert (await impatient.head()).status == 200
            assert await impatient.read(1000) == DATA[:1000]
    hold.set()
    await origin.stored("clip")
    assert origin.gets("clip") == 1


@pytest.mark.parametrize("temperature", ["cold", "warm"])
async def test_what_the_owner_calls_private_is_private_from_every_tier(
    make_origin: MakeOrigin, temperature: str
) -> None:
    """Peers 16 (tag#116): a private fetch was cached as public."""
    origin = await make_origin(cache_control="private, max-age=3600", upstream_token="secret")
    path = await origin.clip("clip", DATA)
    if temperature == "warm":
        await origin.get("clip")
        await origin.stored("clip")
    for headers in ({}, {"Range": "bytes=0-9"}, {"If-None-Match": "*"}):
        response, _ = await origin.get("clip", headers)
        assert response.headers["Cache-Control"] == "private, max-age=3600"
        assert "secret" not in str(response.headers)
    async with origin.client.head(origin.url("clip")) as response:
        assert response.headers["Cache-Control"] == "private, max-age=3600"
    [request] = origin.fal.gets(path)
    assert request.headers["authorization"] == "Bearer secret"


async def test_two_ranges_on_one_connection_during_a_fill_are_both_answered(
    make_origin: MakeOrigin,
) -> None:
    """Peers 31 (varnish#2035): two keep-alive ranges during a fill, the second does not stall."""
    origin = await make_origin(seek_ahead="64KiB")
    hold = asyncio.Event()
    path = await origin.clip("clip", DATA)
    origin.fal.script(path, [Behaviour(stall_at=MIB, stall_until=hold)])
    async with raw_client(origin.app.public_port) as first:
        await first.ask(path_of("clip"))
        await first.head()
        await first.read(MIB)
        async with raw_client(origin.app.public_port) as viewer:
            for start, stop in ((0, 1000), (500_000, 600_000), (1_500_000, 1_600_000), (100, 200)):
                reply = await viewer.get(path_of("clip"), {"Range": f"bytes={start}-{stop - 1}"})
                assert (reply.status, reply.body) == (206, DATA[start:stop])
        assert not hold.is_set()
        hold.set()
        assert await first.rest() == DATA[MIB:]
    await origin.stored("clip")


async def test_pipelined_ranges_are_answered_in_their_order(origin: Origin) -> None:
    """Peers 31 (varnish#2035): the second request may even be there before the first is done."""
    await origin.clip("clip", DATA, Behaviour(rate=8 * MIB))
    async with raw_client(origin.app.public_port) as viewer:
        for start in (MIB, 0, 500_000):
            await viewer.ask(path_of("clip"), {"Range": f"bytes={start}-{start + 99_999}"})
        for start in (MIB, 0, 500_000):
            reply = await viewer.reply()
            assert (reply.status, reply.body) == (206, DATA[start : start + 100_000])


@pytest.mark.parametrize("field", ["bytes=900000-1200000", "bytes=900000-", "bytes=-1500000"])
async def test_a_range_across_the_watermark_is_whole(origin: Origin, field: str) -> None:
    """Peers 26 (nginx#1065), 33 (varnish#1758): a range across a boundary, and an open end."""
    hold = asyncio.Event()
    await origin.clip("clip", DATA, Behaviour(stall_at=MIB, stall_until=hold))
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("clip"), {"Range": field})
        head = await viewer.head()
        place = head.fields["content-range"][6:].partition("/")[0]
        first, last = (int(number) for number in place.split("-"))
        begun = await viewer.read(1000)
        hold.set()
        assert begun + await viewer.rest() == DATA[first : last + 1]


async def test_several_ranges_of_a_cold_clip_are_no_more_than_the_clip(origin: Origin) -> None:
    """Peers 27 (nginx#988): several ranges returned more bytes than the file."""
    await origin.clip("clip", DATA, Behaviour(rate=8 * MIB))
    response, body = await origin.get("clip", {"Range": "bytes=0-99,1000000-1000099,-100"})
    assert response.status == 206
    assert response.content_type == "multipart/byteranges"
    assert len(body) == int(response.headers["Content-Length"]) < 2000
    for part in (DATA[:100], DATA[1_000_000:1_000_100], DATA[-100:]):
        assert part in body
    everything = ",".join(["bytes=0-"] + ["0-"] * 9)
    response, body = await origin.get("clip", {"Range": everything})
    assert (response.status, body) == (200, DATA)


@pytest.mark.parametrize("behaviour", ["waits for the source", "reads nothing", "cold"])
async def test_an_abrupt_disconnect_ends_its_handler(
    make_origin: MakeOrigin, behaviour: str
) -> None:
    """Peers 39 (aiohttp#5693): a handler stuck after an abrupt disconnect."""
    origin = await make_origin()
    hold = asyncio.Event()
    large = make_clip(24 * MIB, 111)
    how = {
        "waits for the source": Behaviour(stall_at=MIB, stall_until=hold),
        "reads nothing": Behaviour(),
        "cold": Behaviour(stall_at=0, stall_until=hold),
    }[behaviour]
    path = await origin.clip("clip", large, how)

    async def has_been_asked() -> bool:
        return bool(origin.fal.gets(path))

    async with raw_client(origin.app.public_port, buffer=16 * 1024) as viewer:
        await viewer.ask(path_of("clip"))
        await wait_for(has_been_asked)
        await viewers(origin, 1)
        if behaviour != "cold":
            await viewer.head()
            await viewer.read(1000)
        linger = struct.pack("ii", 1, 0)
        viewer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        viewer.sock.close()
        await viewers(origin, 0)

    async def nobody_is_connected() -> bool:
        return metric(origin, "firstview_connections") == 0

    await wait_for(nobody_is_connected)
    hold.set()
    await origin.stored("clip")
    await nothing_is_left(origin)


async def test_a_viewer_that_stops_reading_is_let_go_and_the_fill_goes_on(
    make_origin: MakeOrigin,
) -> None:
    """Peers 25 (bazel-remote#473), 40: a reader that does not drain holds nothing for ever."""
    origin = await make_origin(send_stall_timeout="300ms")
    large = make_clip(24 * MIB, 112)
    await origin.clip("clip", large)
    async with raw_client(origin.app.public_port, buffer=16 * 1024) as viewer:
        await viewer.ask(path_of("clip"))
        await viewers(origin, 1)
        await viewers(origin, 0)
        await origin.stored("clip")
        await viewer.head()
        await viewer.rest()
        assert viewer.end == "rst"
    await nothing_is_left(origin)


@pytest.mark.parametrize("temperature", ["cold", "warm"])
async def test_a_player_that_aborts_and_reopens_costs_its_source_one_clip(
    make_origin: MakeOrigin, temperature: str
) -> None:
    """Peers 42 (rapidbay#89): `bytes=N-`, abort, reopen cost 4 to 6 times the clip's bytes."""
    origin = await make_origin()
    clip = Clip(16 * MIB, 113)
    hold = asyncio.Event()
    path = await origin.clip("clip", clip)
    if temperature == "warm":
        await origin.get("clip")
        await origin.stored("clip")
    else:
        origin.fal.script(path, [Behaviour(stall_at=12 * MIB, stall_until=hold)])
    for number in range(40):
        start = number * 256 * 1024
        async with raw_client(origin.app.public_port, buffer=64 * 1024) as player:
            await player.ask(path_of("clip"), {"Range": f"bytes={start}-"})
            head = await player.head()
            assert (head.status, head.length) == (206, len(clip) - start)
            assert await player.read(50_000) == clip.read(start, start + 50_000)
    hold.set()
    await origin.stored("clip")
    sent = sum(request.sent for request in origin.fal.gets(path))
    assert sent <= 1.5 * len(clip)
    await nothing_is_left(origin)
