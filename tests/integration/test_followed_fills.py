"""Two firstviews on one data directory: one fill per clip, whoever asks for it, whoever ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.app import App
from proxy.delivery.spool import Spool
from proxy.errors import DiskExhausted
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.looking import metric, nothing_is_left, path_of
from tests.fixtures.origin import Origin, running_origin, settings_for, wait_for
from tests.fixtures.raw import raw_client
from tests.fixtures.servers import free_port

MIB = 1024 * 1024
DATA = make_clip(3 * MIB, 1)
OTHER = make_clip(3 * MIB, 2)


@asynccontextmanager
async def pair(
    tmp_path: Path, fal: FakeFal, **settings: Any
) -> AsyncIterator[tuple[Origin, Origin]]:
    async with (
        running_origin(tmp_path / "data", fal, **settings) as one,
        running_origin(tmp_path / "data", fal, **settings) as two,
    ):
        yield one, two


def ends(origin: Origin, end: str) -> float:
    return metric(origin, "firstview_followed_fills_total", end=end)


async def is_ready(origin: Origin) -> None:
    async def look() -> bool:
        flight = origin.app.flights.get("clip")
        return flight is not None and flight.is_ready

    await wait_for(look)


def filling_up(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let the disk have no room for a clip in either process once the event is set."""
    full, real = asyncio.Event(), Spool.append

    async def append(spool: Spool, chunk: bytes) -> None:
        if full.is_set():
            raise DiskExhausted
        await real(spool, chunk)

    monkeypatch.setattr(Spool, "append", append)
    return full


async def test_viewers_of_two_processes_cause_one_fill(
    tmp_path: Path, fal: FakeFal, bucket_url: str
) -> None:
    hold = asyncio.Event()
    async with pair(tmp_path, fal, bucket_url=bucket_url) as (one, two):
        await one.clip("clip", DATA, Behaviour(stall_at=MIB, stall_until=hold))
        views = [asyncio.create_task(origin.get("clip")) for origin in (one, two) * 20]
        await asyncio.gather(is_ready(one), is_ready(two))
        hold.set()
        replies = await asyncio.gather(*views)
        assert [body == DATA for _, body in replies] == [True] * 40
        assert len({reply.headers["ETag"] for reply, _ in replies}) == 1
        assert one.gets("clip") == 1
        for origin in (one, two):
            hit, body = await origin.get("clip")
            assert body == DATA
            assert hit.headers["Cache-Status"].startswith("firstview; hit")
        await one.stored("clip")
        await two.stored("clip")
        await wait_for(lambda: _is(one.leftovers() == []))
        assert one.gets("clip") == 1
        assert ends(one, "whole") + ends(two, "whole") == 1
        assert metric(one, "firstview_fills_total", source="upstream", outcome="ok") in {0, 1}


async def _is(said: bool) -> bool:
    return said


async def test_a_viewer_of_a_followed_fill_has_its_bytes_as_they_come_and_the_last_one_proven(
    tmp_path: Path, fal: FakeFal
) -> None:
    hold = asyncio.Event()
    async with pair(tmp_path, fal) as (one, two):
        await one.clip("clip", DATA, Behaviour(stall_at=len(DATA) - 1, stall_until=hold))
        first = asyncio.create_task(one.get("clip"))
        await is_ready(one)
        async with raw_client(two.app.public_port) as viewer:
            await viewer.ask(path_of("clip"))
            head = await viewer.head()
            assert "collapsed" in head.fields["cache-status"]
            begun = await viewer.read(len(DATA) - 1)
            hold.set()
            assert begun + await viewer.rest() == DATA
        await first
        assert one.gets("clip") == 1


async def test_a_far_range_does_not_wait_for_a_followed_fill(tmp_path: Path, fal: FakeFal) -> None:
    hold = asyncio.Event()
    async with pair(tmp_path, fal, seek_ahead="64KiB") as (one, two):
        path = await one.clip("clip", DATA)
        fal.script(path, [Behaviour(stall_at=MIB, stall_until=hold)])
        first = asyncio.create_task(one.get("clip"))
        await is_ready(one)
        _, whole = await two.get("clip", {"Range": "bytes=0-99"})
        assert whole == DATA[:100]
        reply, body = await two.get("clip", {"Range": f"bytes={2 * MIB}-"})
        assert (reply.status, body) == (206, DATA[2 * MIB :])
        hold.set()
        _, body = await first
        assert body == DATA
        ranges = [request.range for request in fal.gets(path)]
        assert ranges.count(None) == 1


async def test_a_fill_whose_process_stops_is_gone_on_with_by_the_one_that_follows(
    tmp_path: Path, fal: FakeFal, bucket_url: str
) -> None:
    settings = {"bucket_url": bucket_url, "drain_timeout": "100ms"}
    async with running_origin(tmp_path / "data", fal, **settings) as two:
        async with running_origin(tmp_path / "data", fal, **settings) as one:
            path = await one.clip("clip", DATA)
            fal.script(path, [Behaviour(stall_at=MIB)])
            first = asyncio.create_task(one.get("clip"))
            await is_ready(one)
            views = [asyncio.create_task(two.get("clip")) for _ in range(10)]
            await is_ready(two)
        first.cancel()
        replies = await asyncio.gather(*views)
        assert [body == DATA for _, body in replies] == [True] * 10
        _, again = fal.gets(path)
        assert again.range == f"bytes={MIB}-"
        assert again.headers["if-range"]
        await two.stored("clip")
        await wait_for(lambda: _is(two.leftovers() == []))
        assert ends(two, "go_on") == 1


async def test_without_a_validator_what_is_gone_on_with_is_compared(
    tmp_path: Path, fal: FakeFal
) -> None:
    async with running_origin(tmp_path / "data", fal, drain_timeout="100ms") as two:
        async with running_origin(tmp_path / "data", fal, drain_timeout="100ms") as one:
            path = await one.clip("clip", DATA, Behaviour(etag="none"))
            fal.script(path, [Behaviour(stall_at=MIB, etag="none")])
            first = asyncio.create_task(one.get("clip"))
            await is_ready(one)
            view = asyncio.create_task(two.get("clip"))
            await is_ready(two)
        first.cancel()
        _, body = await view
        assert body == DATA
        assert [request.range for request in fal.gets(path)] == [None, None]


async def test_a_fill_that_fails_resets_its_viewers_in_every_process(
    tmp_path: Path, fal: FakeFal
) -> None:
    hold = asyncio.Event()
    async with pair(tmp_path, fal, fill_stall_timeout="300ms") as (one, two):
        path = await one.clip("clip", DATA, Behaviour(status=404))
        fal.script(path, [Behaviour(stall_at=MIB, stall_until=hold, cut_at=2 * MIB)])
        first = asyncio.create_task(one.get("clip"))
        await is_ready(one)
        async with raw_client(two.app.public_port) as viewer:
            await viewer.ask(path_of("clip"))
            await viewer.head()
            begun = await viewer.read(MIB)
            hold.set()
            body = begun + await viewer.rest()
            assert viewer.end == "rst"
            assert DATA.startswith(body)
            assert len(body) < len(DATA)
        await asyncio.gather(first, return_exceptions=True)
        for origin in (one, two):
            reply, _ = await origin.get("clip")
            assert reply.status == 410
            await nothing_is_left(origin)


async def test_who_waits_for_a_fill_that_fails_at_once_hears_why(
    tmp_path: Path, fal: FakeFal
) -> None:
    async with pair(tmp_path, fal) as (one, two):
        await one.clip("clip", DATA, Behaviour(delay=0.2, status=404))
        replies = await asyncio.gather(*(origin.get("clip") for origin in (one, two) * 5))
        assert [reply.status for reply, _ in replies] == [410] * 10
        for origin in (one, two):
            await nothing_is_left(origin)


async def test_a_clip_whose_length_is_not_told_is_followed_to_its_end(
    tmp_path: Path, fal: FakeFal, bucket_url: str
) -> None:
    async with pair(tmp_path, fal, bucket_url=bucket_url) as (one, two):
        await one.clip("clip", DATA, Behaviour(framing="chunked", rate=20 * MIB))
        replies = await asyncio.gather(*(origin.get("clip") for origin in (one, two) * 5))
        assert [body == DATA for _, body in replies] == [True] * 10
        assert one.gets("clip") == 1


async def test_small_clips_are_fetched_once_however_fast_they_come_and_go(
    tmp_path: Path, fal: FakeFal, bucket_url: str
) -> None:
    small = {f"clip{number}": make_clip(5000 + number, number) for number in range(20)}
    async with pair(tmp_path, fal, bucket_url=bucket_url) as (one, two):
        for name, data in small.items():
            await one.clip(name, data)
        for name, data in small.items():
            replies = await asyncio.gather(*(origin.get(name) for origin in (one, two) * 3))
            assert [body == data for _, body in replies] == [True] * 6
        assert [one.gets(name) for name in small] == [1] * len(small)


async def test_a_clip_that_is_kept_in_one_process_is_served_from_there_in_the_other(
    tmp_path: Path, fal: FakeFal, aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    async with pair(tmp_path, fal, bucket_url="s3://away") as (one, two):
        await one.clip("clip", DATA)
        await one.get("clip")
        assert one.leftovers() != []
        _, body = await two.get("clip")
        assert body == DATA
        again, body = await two.get("clip")
        assert body == DATA
        assert again.headers["Cache-Status"].startswith("firstview; hit")
        assert one.gets("clip") == 1


async def test_where_the_disk_is_full_viewers_who_follow_are_streamed_to_as_well(
    tmp_path: Path, fal: FakeFal, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, full = asyncio.Event(), filling_up(monkeypatch)
    async with pair(tmp_path, fal) as (one, two):
        path = await one.clip("clip", DATA)
        fal.script(path, [Behaviour(stall_at=MIB, stall_until=hold)])
        first = asyncio.create_task(one.get("clip"))
        await is_ready(one)
        second = asyncio.create_task(two.get("clip"))
        await is_ready(two)
        full.set()
        hold.set()
        for view in (first, second):
            _, body = await view
            assert body == DATA
        for origin in (one, two):
            await nothing_is_left(origin)


async def test_where_the_disk_is_full_what_viewers_have_is_continued_only_by_the_same_bytes(
    tmp_path: Path, fal: FakeFal, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold, full = asyncio.Event(), filling_up(monkeypatch)
    async with pair(tmp_path, fal) as (one, two):
        path = await one.clip("clip", DATA, Behaviour(etag="none", body=OTHER))
        fal.script(path, [Behaviour(etag="none", stall_at=MIB, stall_until=hold)])
        async with AsyncExitStack() as viewers:
            views = []
            for origin in (one, two):
                viewer = await viewers.enter_async_context(raw_client(origin.app.public_port))
                await viewer.ask(path_of("clip"))
                await viewer.head()
                views.append((viewer, await viewer.read(MIB // 2)))
            full.set()
            hold.set()
            for viewer, begun in views:
                assert DATA.startswith(begun + await viewer.rest())
                assert viewer.end == "rst"
        for origin in (one, two):
            await nothing_is_left(origin)


async def test_an_id_that_is_pointed_elsewhere_does_not_cut_off_who_follows(
    tmp_path: Path, fal: FakeFal
) -> None:
    hold = asyncio.Event()
    async with pair(tmp_path, fal) as (one, two):
        await one.clip("clip", DATA, Behaviour(stall_at=MIB, stall_until=hold))
        first = asyncio.create_task(one.get("clip"))
        await is_ready(one)
        second = asyncio.create_task(two.get("clip"))
        await is_ready(two)
        await one.app.locator.forget("clip")
        await two.app.locator.forget("clip")
        hold.set()
        for view in (first, second):
            _, body = await view
            assert body == DATA
        for origin in (one, two):
            await nothing_is_left(origin)


async def test_a_mirror_that_is_held_back_is_not_while_another_process_has_viewers(
    tmp_path: Path, fal: FakeFal
) -> None:
    async with pair(tmp_path, fal, mirror_bandwidth="16KiB") as (one, two):
        await one.clip("clip", DATA)
        mirror = asyncio.create_task(one.app.corridor.mirrors.mirror("clip"))
        await is_ready(one)
        _, body = await two.get("clip")  # or it would take three minutes
        assert body == DATA
        await mirror
        assert one.gets("clip") == 1


async def test_a_mirror_that_follows_a_fill_ends_when_that_is_stored(
    tmp_path: Path, fal: FakeFal
) -> None:
    hold = asyncio.Event()
    async with pair(tmp_path, fal) as (one, two):
        await one.clip("clip", DATA, Behaviour(stall_at=MIB, stall_until=hold))
        view = asyncio.create_task(one.get("clip"))
        await is_ready(one)
        mirror = asyncio.create_task(two.app.corridor.mirrors.mirror("clip"))
        await is_ready(two)
        hold.set()
        await asyncio.gather(view, mirror)
        row = await two.row("clip")
        assert row is not None
        assert row.status == "stored"
        assert one.gets("clip") == 1


async def test_a_worker_and_viewers_beside_it_share_one_fill(tmp_path: Path, fal: FakeFal) -> None:
    hold = asyncio.Event()
    async with running_origin(tmp_path / "data", fal) as one:
        await one.clip("clip", DATA, Behaviour(stall_at=MIB, stall_until=hold))
        settings = settings_for(tmp_path / "data")
        async with App(settings).working(works=False, sweeps=False) as worker:
            mirror = asyncio.create_task(worker.corridor.mirrors.mirror("clip"))
            await wait_for(lambda: _is(len(fal.gets()) == 1))
            view = asyncio.create_task(one.get("clip"))
            await is_ready(one)
            hold.set()
            _, body = await view
            assert body == DATA
            await mirror
        assert one.gets("clip") == 1
        await nothing_is_left(one)
