"""The disk cache behind real viewers: bounded, kept over restarts, and never a lie."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.storage.cached_files import CachedFiles
from tests.fakes.bucket import FaultyBucket
from tests.fakes.fal import FakeFal, make_clip
from tests.fixtures.cache import FACTS, is_cached
from tests.fixtures.looking import metric
from tests.fixtures.origin import Origin, running_origin, wait_for
from tests.fixtures.raw import raw_client
from tests.fixtures.truth import Truth

MIB = 1024 * 1024
SIZE = 300_000
ROOM = SIZE + 10_000
"""What each of a few clips takes up, with its facts and its part of what is kept free."""
STABLE = ("ETag", "Last-Modified", "Content-Length", "Cache-Control", "Cache-Tag", "Content-Type")


@asynccontextmanager
async def origin_of(
    tmp_path: Path, fal: FakeFal, truth: Truth, **changes: Any
) -> AsyncIterator[Origin]:
    settings = {"bucket_url": truth.url, **changes}
    async with running_origin(tmp_path / "data", fal, **settings) as origin:
        yield origin


async def settled(origin: Origin) -> None:
    """Wait until nothing is on its way in, or to the bucket."""

    async def look() -> bool:
        return len(origin.app.flights) == len(origin.app.ownership) == 0

    await wait_for(look)


def cached(origin: Origin) -> list[Path]:
    return sorted((origin.app.settings.data_dir / "cache").glob("*/*.mp4"))


def on_disk(origin: Origin) -> int:
    """Bytes of clips in the spool and in the cache; a file that moves meanwhile is counted once."""
    data_dir, sizes = origin.app.settings.data_dir, dict[int, int]()
    for path in (*data_dir.glob("spool/*.part"), *data_dir.glob("cache/*/*.mp4")):
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            sizes[found.st_ino] = found.st_size
    return sum(sizes.values())


def said(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name: response.headers[name] for name in STABLE}


async def test_fills_at_once_never_overrun_the_budget(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    budget = 5 * SIZE
    async with origin_of(tmp_path, fal, truth, cache_max_bytes=str(budget)) as origin:
        clips = {f"clip-{n}": make_clip(SIZE, n) for n in range(24)}
        for name, data in clips.items():
            await origin.clip(name, data)
        most = 0
        done = asyncio.Event()

        async def watch() -> None:
            nonlocal most
            while not done.is_set():
                most = max(most, on_disk(origin))
                assert origin.app.disk.used <= budget
                await asyncio.sleep(0.002)

        watching = asyncio.create_task(watch())
        replies = await asyncio.gather(*(origin.get(name) for name in clips))
        done.set()
        await watching
        assert [body == data for (_, body), data in zip(replies, clips.values(), strict=True)] == [
            True
        ] * len(clips)
        await settled(origin)
        assert most <= budget
        assert origin.app.disk.used == sum(path.stat().st_size for path in cached(origin))
        for name, data in clips.items():
            _, body = await origin.get(name)
            assert body == data


async def test_the_clip_that_nobody_views_gives_way_and_comes_back_from_the_bucket(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    async with origin_of(tmp_path, fal, truth, cache_max_bytes=str(2 * ROOM)) as origin:
        first = {}
        for n, name in enumerate("ab"):
            await origin.clip(name, make_clip(SIZE, n))
            response, _ = await origin.get(name)
            first[name] = said(response)
            await origin.stored(name)
        for _ in range(2):
            await origin.get("a")
        await origin.clip("c", make_clip(SIZE, 2))
        await origin.get("c")
        await settled(origin)
        assert [await is_cached(origin.app.disk, "a"), await is_cached(origin.app.disk, "b")] == [
            True,
            False,
        ]

        async def counted() -> bool:
            return metric(origin, "firstview_evictions_total") == 1

        async def closed() -> bool:
            return origin.app.places.files.get("b") is None

        await wait_for(counted)
        await wait_for(closed)  # a descriptor that is still open would be as good as ever
        back, body = await origin.get("b")
        assert body == make_clip(SIZE, 1)
        assert "detail=bucket" in back.headers["Cache-Status"]
        assert said(back) == first["b"]
        assert origin.gets("b") == 1


async def test_a_viewer_reads_a_clip_to_its_end_though_it_is_evicted_meanwhile(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    size = 8 * MIB  # more than sockets hold
    data = make_clip(size, 3)
    async with origin_of(tmp_path, fal, truth, cache_max_bytes=str(2 * size - MIB)) as origin:
        await origin.clip("read", data)
        await origin.get("read")
        await origin.stored("read")
        async with raw_client(origin.app.public_port, buffer=16 * 1024) as viewer:
            await viewer.ask("/videos/read.mp4")
            await viewer.head()
            begun = await viewer.read(100_000)
            await origin.clip("other", make_clip(size, 4))
            _, body = await origin.get("other")
            assert body == make_clip(size, 4)
            await origin.stored("other")
            assert not await is_cached(origin.app.disk, "read")
            assert begun + await viewer.read(size - 100_000) == data


async def test_viewers_who_leave_evict_nothing(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    """Peers 15 (tag#104): a disconnect during a cache read evicted a good entry."""
    size = 8 * MIB
    data = make_clip(size, 5)
    async with origin_of(tmp_path, fal, truth) as origin:
        await origin.clip("good", data)
        await origin.get("good")
        await origin.stored("good")
        for _ in range(5):
            async with raw_client(origin.app.public_port, buffer=16 * 1024) as viewer:
                await viewer.ask("/videos/good.mp4")
                await viewer.head()
                await viewer.read(1000)
        hit, body = await origin.get("good")
        assert body == data
        assert hit.headers["Cache-Status"] == "firstview; hit; detail=disk"
        assert len(faulty_bucket.seen("GetObject")) == 0


async def test_a_process_short_of_descriptors_evicts_nothing(
    tmp_path: Path,
    fal: FakeFal,
    faulty_bucket: FaultyBucket,
    truth: Truth,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Peers 15 (tag#104): an error of the machine says nothing of the clip."""
    data = make_clip(SIZE, 6)
    async with origin_of(tmp_path, fal, truth) as origin:
        await origin.clip("good", data)
        first, _ = await origin.get("good")
        await origin.stored("good")
        origin.app.places.files.close()

        def too_many(*_: object, **__: object) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patch:
            patch.setattr(CachedFiles, "open", too_many)
            response, body = await origin.get("good")
            assert body == data  # from the bucket, then
            assert said(response) == said(first)
        await settled(origin)
        hit, body = await origin.get("good")
        assert body == data
        assert hit.headers["Cache-Status"] == "firstview; hit; detail=disk"
        assert origin.gets("good") == 1


async def test_a_restart_serves_from_the_disk_with_the_same_head(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    clips = {f"clip-{n}": make_clip(SIZE, 10 + n) for n in range(3)}
    first = {}
    async with origin_of(tmp_path, fal, truth) as origin:
        for name, data in clips.items():
            await origin.clip(name, data, model="fal-ai/veo3")
            response, _ = await origin.get(name)
            first[name] = said(response)
            await origin.stored(name)
    fal.forget()
    async with origin_of(tmp_path, fal, truth) as again:
        await faulty_bucket.down()
        for name, data in clips.items():
            hit, body = await again.get(name)
            assert body == data
            assert said(hit) == first[name]
            assert hit.headers["Cache-Status"] == "firstview; hit; detail=disk"
    assert fal.gets() == []


@pytest.mark.parametrize("wrong", ["cut short", "without facts", "empty", "gone"])
async def test_a_file_that_is_no_whole_clip_is_not_served_after_a_restart(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, wrong: str
) -> None:
    """Peers 22 (distribution#2367), 23 (proxpi#68): never an empty or a truncated 200."""
    data = make_clip(SIZE, 20)
    async with origin_of(tmp_path, fal, truth) as origin:
        await origin.clip("clip", data)
        first, _ = await origin.get("clip")
        await origin.stored("clip")
        [file] = cached(origin)
    if wrong == "cut short":
        os.truncate(file, SIZE + FACTS - 1)
    elif wrong == "without facts":
        file.write_bytes(b"?" * (SIZE + FACTS))
    elif wrong == "empty":
        os.truncate(file, 0)
    else:
        file.unlink()
    foreign = file.with_name("stranger.mp4")
    foreign.write_bytes(b"?" * SIZE)
    async with origin_of(tmp_path, fal, truth) as again:
        response, body = await again.get("clip")
        assert body == data
        assert said(response) == said(first)
        assert "detail=bucket" in response.headers["Cache-Status"]
        stranger, _ = await again.get("stranger")
        assert stranger.status == 404

        async def replaced() -> bool:
            return cached(again) == [file] and file.read_bytes()[:SIZE] == data

        await wait_for(replaced)


@pytest.mark.parametrize("wrong", ["cut short", "gone"])
async def test_a_file_that_breaks_while_it_is_in_use_is_noticed_and_replaced(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, wrong: str
) -> None:
    """Peers 22 (distribution#2367): metadata that outlives its blob."""
    data = make_clip(SIZE, 21)
    async with origin_of(tmp_path, fal, truth) as origin:
        await origin.clip("clip", data)
        await origin.get("clip")
        await origin.stored("clip")
        [file] = cached(origin)
        if wrong == "cut short":
            os.truncate(file, SIZE // 2)
            with pytest.raises(aiohttp.ClientPayloadError):  # reset, never ended as if whole
                await origin.get("clip")
        else:
            file.unlink()
        _, body = await origin.get("clip")
        assert body == data
        await settled(origin)
        _, body = await origin.get("clip")
        assert body == data
        assert origin.gets("clip") == 1
