"""Two `firstview serve` on one data directory: one question to upstream, whoever is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.fakes.bucket import FaultyBucket
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.origin import wait_for
from tests.fixtures.serving import Serving, serving
from tests.fixtures.truth import Truth

pytestmark = pytest.mark.timeout(240)  # processes start one after the other

MIB = 1024 * 1024
VIEWERS = 1000
KILLED = 40


@asynccontextmanager
async def two_processes(
    data_dir: Path, bucket_url: str, **settings: object
) -> AsyncIterator[tuple[Serving, Serving]]:
    both = {"bucket_url": bucket_url, **settings}
    async with serving(data_dir, **both) as one, serving(data_dir, **both) as two:
        yield one, two


class Viewer:
    """One viewer who reads as fast as there is something to read."""

    def __init__(self, client: aiohttp.ClientSession, url: str) -> None:
        self.body = bytearray()
        self.failed = False
        self.task = asyncio.create_task(self._watch(client, url))

    async def _watch(self, client: aiohttp.ClientSession, url: str) -> None:
        try:
            async with client.get(url) as reply:
                assert reply.status == 200
                async for chunk in reply.content.iter_any():
                    self.body += chunk
        except aiohttp.ClientError:
            self.failed = True


async def have_begun(viewers: list[Viewer], at_least: int) -> None:
    async def look() -> bool:
        return all(len(viewer.body) >= at_least for viewer in viewers)

    await wait_for(look, 40)


async def test_a_thousand_viewers_of_two_processes_cause_one_question_to_upstream(
    tmp_path: Path, fal: FakeFal
) -> None:
    data, rest = make_clip(128 * 1024, 1), asyncio.Event()
    url = fal.add("/clip.mp4", data, Behaviour(stall_at=64 * 1024, stall_until=rest))
    async with (
        two_processes(tmp_path / "data", "") as (one, two),
        aiohttp.ClientSession(
            auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
        ) as client,
    ):
        await one.register("clip", url)
        viewers = [Viewer(client, each.url("clip")) for each in (one, two) * (VIEWERS // 2)]
        await have_begun(viewers, 64 * 1024)
        rest.set()
        await asyncio.gather(*(viewer.task for viewer in viewers))
        assert [viewer.failed for viewer in viewers] == [False] * VIEWERS
        assert [bytes(viewer.body) == data for viewer in viewers] == [True] * VIEWERS
        assert len(fal.gets("/clip.mp4")) == 1


async def test_when_the_process_that_fills_is_killed_the_other_goes_on_where_it_stopped(
    tmp_path: Path, fal: FakeFal, bucket_url: str
) -> None:
    data = make_clip(6 * MIB, 2)
    url = fal.add("/clip.mp4", data)
    fal.script("/clip.mp4", [Behaviour(stall_at=3 * MIB)])
    settings = {"single_put_max": "1MiB", "part_size": "5MiB"}
    async with (
        two_processes(tmp_path / "data", bucket_url, **settings) as (one, two),
        aiohttp.ClientSession(
            auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
        ) as client,
    ):
        await one.register("clip", url)
        lost = [Viewer(client, one.url("clip"))]
        await have_begun(lost, 3 * MIB)
        saved = [Viewer(client, two.url("clip")) for _ in range(KILLED)]
        await have_begun(saved, 3 * MIB)
        one.process.kill()
        await asyncio.gather(*(viewer.task for viewer in [*lost, *saved]))
        assert lost[0].failed
        assert data.startswith(lost[0].body)
        assert [viewer.failed for viewer in saved] == [False] * KILLED
        assert [bytes(viewer.body) == data for viewer in saved] == [True] * KILLED
        first, second = fal.gets("/clip.mp4")
        assert (first.range, second.range) == (None, f"bytes={3 * MIB}-")
        assert second.headers["if-range"]
        said = await two.stored("clip")
        assert (said["event"], said["taken_over_at"]) == ("fill", 3 * MIB)
        assert len(fal.gets("/clip.mp4")) == 2

        async def nothing_left() -> bool:
            return list((tmp_path / "data" / "spool").iterdir()) == []

        await wait_for(nothing_left)


async def test_a_clip_that_a_killed_process_kept_is_stored_by_the_one_that_lives(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    """Nobody has to view it, and upstream is not asked again: it may not have it any more."""
    data = make_clip(MIB, 3)
    url = fal.add("/clip.mp4", data)
    async with two_processes(tmp_path / "data", truth.url, worker=False) as (one, two):
        await faulty_bucket.down()
        await one.register("clip", url)
        async with one.client.get(one.url("clip")) as reply:
            assert await reply.read() == data

        async def is_kept() -> bool:
            return any(line["event"] == "kept on disk, will try again" for line in one.log)

        await wait_for(is_kept, 30)
        one.process.kill()
        await one.process.wait()
        await faulty_bucket.up()
        await two.stored("clip", 40)
        assert truth.body("clip") == data
        assert len(fal.gets("/clip.mp4")) == 1
