"""The first bytes of a cold clip, which viewers have before any file does."""

from __future__ import annotations

import asyncio
import threading

import pytest

from proxy.delivery import flights
from proxy.delivery.spool import Spool
from proxy.errors import DiskExhausted
from tests.fakes.fal import Behaviour, make_clip
from tests.fixtures.looking import nothing_is_left, path_of
from tests.fixtures.origin import MakeOrigin
from tests.fixtures.raw import raw_client

MIB = 1024 * 1024
DATA = make_clip(MIB, 1)
OTHER = make_clip(MIB, 2)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Nothing is written before this is set."""
    go_on, real = threading.Event(), Spool._write

    def slowly(spool: Spool, chunk: bytes | memoryview) -> None:
        assert go_on.wait(10)
        real(spool, chunk)

    monkeypatch.setattr(Spool, "_write", slowly)
    return go_on


async def test_a_slow_disk_does_not_keep_the_first_bytes_from_a_viewer(
    make_origin: MakeOrigin, writes: threading.Event
) -> None:
    origin = await make_origin()
    await origin.clip("clip", DATA)
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("clip"))
        assert (await viewer.head()).status == 200
        begun = await viewer.read(1000)
        assert begun == DATA[:1000]
        writes.set()
        assert begun + await viewer.rest() == DATA
        assert viewer.end == "open"
    await origin.stored("clip")


@pytest.mark.parametrize("length", [100, 65_536, 65_537])
async def test_a_small_clip_keeps_its_last_byte_until_it_is_whole(
    make_origin: MakeOrigin, writes: threading.Event, length: int
) -> None:
    origin = await make_origin()
    data = make_clip(length)
    await origin.clip("clip", data)
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("clip"))
        await viewer.head()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await viewer.rest()
        writes.set()
    await origin.stored("clip")
    _, body = await origin.get("clip")
    assert body == data


@pytest.mark.parametrize("etag", ['"tag"', "none"])
async def test_where_the_disk_is_full_who_has_first_bytes_is_streamed_the_rest(
    make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch, etag: str
) -> None:
    async def full(_: Spool, __: bytes) -> None:
        raise DiskExhausted

    monkeypatch.setattr(Spool, "append", full)
    origin = await make_origin()
    await origin.clip("clip", DATA, Behaviour(etag=etag))
    _, body = await origin.get("clip")
    assert body == DATA
    await nothing_is_left(origin)


async def test_where_the_disk_is_full_first_bytes_are_not_continued_by_another_clip(
    make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_: Spool, __: bytes) -> None:
        raise DiskExhausted

    monkeypatch.setattr(Spool, "append", full)
    origin = await make_origin()
    path = await origin.clip("clip", DATA, Behaviour(etag="none", body=OTHER))
    origin.fal.script(path, [Behaviour(etag="none")])
    async with raw_client(origin.app.public_port) as viewer:
        reply = await viewer.get(path_of("clip"))
    assert reply.end == "rst"
    assert DATA.startswith(reply.body)
    assert len(reply.body) < len(DATA)
    await nothing_is_left(origin)


async def test_a_far_range_of_a_cold_clip_is_answered_before_the_fill_begins(
    make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flights, "_COURTESY", 30.0)
    origin = await make_origin(seek_ahead="64KiB")
    path = await origin.clip("clip", DATA)
    async with raw_client(origin.app.public_port) as viewer:
        reply = await viewer.get(path_of("clip"), {"Range": "bytes=900000-"})
    assert reply.body == DATA[900_000:]
    await origin.stored("clip")
    assert [request.range for request in origin.fal.gets(path)] == ["bytes=900000-", None]


@pytest.mark.parametrize("how", [Behaviour(status=500), Behaviour(ranges="ignore")], ids=repr)
async def test_a_far_range_that_is_refused_keeps_no_fill_waiting(
    make_origin: MakeOrigin, monkeypatch: pytest.MonkeyPatch, how: Behaviour
) -> None:
    monkeypatch.setattr(flights, "_COURTESY", 30.0)
    origin = await make_origin(seek_ahead="64KiB")
    path = await origin.clip("clip", DATA)
    origin.fal.script(path, [how], of_ranges=True)
    async with raw_client(origin.app.public_port) as viewer:
        reply = await viewer.get(path_of("clip"), {"Range": "bytes=900000-"})
    assert reply.body == DATA[900_000:]
    await origin.stored("clip")


async def test_a_far_range_that_hangs_keeps_no_fill_waiting_for_long(
    make_origin: MakeOrigin,
) -> None:
    origin = await make_origin(seek_ahead="64KiB")
    path = await origin.clip("clip", DATA)
    go_on = asyncio.Event()
    origin.fal.script(path, [Behaviour(stall_at=0, stall_until=go_on)], of_ranges=True)
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("clip"), {"Range": "bytes=900000-"})
        _, body = await origin.get("clip")
        assert body == DATA
        go_on.set()
