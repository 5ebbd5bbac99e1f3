"""Two instances, each with its own disk, on one bucket and one catalog, filling the same clip."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster

from tests.fakes.bucket import Fault, FaultyBucket
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.catalog import let_asyncpg_read_its_files
from tests.fixtures.origin import Origin, running_origin
from tests.fixtures.truth import Truth

MIB = 1024 * 1024
SMALL, LARGE = 500_000, 6 * MIB


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog_url(
    request: pytest.FixtureRequest, tmp_path: Path, _event_loop_guard: BlockBuster
) -> str:
    let_asyncpg_read_its_files(_event_loop_guard)
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/shared.sqlite"
    url: str = request.getfixturevalue("postgres_url")
    return url


@asynccontextmanager
async def pair(
    tmp_path: Path, fal: FakeFal, catalog_url: str, truth: Truth, **changes: Any
) -> AsyncIterator[tuple[Origin, Origin]]:
    settings: dict[str, Any] = {
        "bucket_url": truth.url,
        "database_url": catalog_url,
        "single_put_max": "1MiB",
        "part_size": "5MiB",
        **changes,
    }
    async with (
        running_origin(tmp_path / "one", fal, **settings) as one,
        running_origin(tmp_path / "two", fal, **settings) as two,
    ):
        yield one, two


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_two_instances_that_fill_one_clip_at_once_make_one_object(
    tmp_path: Path,
    fal: FakeFal,
    faulty_bucket: FaultyBucket,
    truth: Truth,
    catalog_url: str,
    size: int,
) -> None:
    data, rest = make_clip(size, 1), asyncio.Event()
    async with pair(tmp_path, fal, catalog_url, truth) as (one, two):
        await one.clip("clip", data, Behaviour(stall_at=size - 1000, stall_until=rest))
        views = [asyncio.create_task(origin.get("clip")) for origin in (one, two)]

        while len(fal.gets()) < 2:  # noqa: ASYNC110 - the fake tells nobody
            await asyncio.sleep(0.01)
        rest.set()
        replies = await asyncio.gather(*views)
        assert [body == data for _, body in replies] == [True, True]
        etags = {response.headers["ETag"] for response, _ in replies}
        times = {response.headers["Last-Modified"] for response, _ in replies}
        assert (len(etags), len(times)) == (1, 1)
        rows = [await origin.stored("clip") for origin in (one, two)]
        assert rows[0] == rows[1]
        assert truth.body("clip") == data
        assert truth.uploads() == []
        assert one.leftovers() == two.leftovers() == []
        written = "PutObject" if size == SMALL else "CompleteMultipartUpload"
        # The condition lets one of them in; the other looks, compares, and is done too.
        assert Counter(seen.status for seen in faulty_bucket.seen(written)) == {200: 1, 412: 1}
        assert len(faulty_bucket.seen("HeadObject")) == 1
        for failures in one.app.metrics.store_failures.collect():
            assert not any(sample.value for sample in failures.samples)
        for origin in (one, two):
            hit, body = await origin.get("clip")
            assert body == data
            assert hit.headers["Cache-Status"] == "firstview; hit; detail=disk"


async def test_without_a_condition_for_parts_both_may_write_and_the_bytes_are_the_same(
    tmp_path: Path, fal: FakeFal, r2_bucket: FaultyBucket, truth: Truth, catalog_url: str
) -> None:
    data = make_clip(LARGE, 2)
    changes = {"bucket_conditional_complete": False}
    async with pair(tmp_path, fal, catalog_url, truth, **changes) as (one, two):
        await one.clip("clip", data)
        replies = await asyncio.gather(one.get("clip"), two.get("clip"))
        assert [body == data for _, body in replies] == [True, True]
        await asyncio.gather(one.stored("clip"), two.stored("clip"))
        assert truth.body("clip") == data
        assert truth.uploads() == []
        assert one.leftovers() == two.leftovers() == []


async def test_the_second_instance_takes_over_what_the_first_has_stored(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, catalog_url: str
) -> None:
    data = make_clip(SMALL, 3)
    async with pair(tmp_path, fal, catalog_url, truth) as (one, two):
        await one.clip("clip", data)
        first, _ = await one.get("clip")
        await one.stored("clip")
        second, body = await two.get("clip")
        assert body == data
        assert second.headers["ETag"] == first.headers["ETag"]
        assert "detail=bucket" in second.headers["Cache-Status"]
        assert len(fal.gets()) == 1


async def test_an_instance_whose_reply_was_lost_and_its_twin_both_end_up_with_the_clip_stored(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, catalog_url: str
) -> None:
    data = make_clip(SMALL, 4)
    faulty_bucket.faults.append(Fault(operation="PutObject", lose_reply=True))
    async with pair(tmp_path, fal, catalog_url, truth) as (one, two):
        await one.clip("clip", data)
        replies = await asyncio.gather(one.get("clip"), two.get("clip"))
        assert [body == data for _, body in replies] == [True, True]
        await asyncio.gather(one.stored("clip"), two.stored("clip"))
        assert truth.body("clip") == data
        assert one.leftovers() == two.leftovers() == []
