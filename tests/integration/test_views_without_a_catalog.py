"""A catalog that goes away: viewers never notice, and the row says stored once it is back."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.bucket import FaultyBucket
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.gate import Gate, through
from tests.fixtures.origin import Origin, running_origin, wait_for
from tests.fixtures.truth import Truth

SIZE = 400_000


@asynccontextmanager
async def origin_of(
    tmp_path: Path, fal: FakeFal, truth: Truth, url: str, **changes: Any
) -> AsyncIterator[Origin]:
    settings = {"bucket_url": truth.url, "database_url": url, "drain_timeout": "500ms", **changes}
    async with running_origin(tmp_path / "data", fal, **settings) as origin:
        yield origin


async def close(gate: Gate, how: str) -> None:
    if how == "refuses":
        await gate.shut()
    else:
        gate.freeze()


async def waits(origin: Origin, count: int) -> None:
    async def look() -> bool:
        return len(origin.app.ownership) == count and len(origin.app.flights) == 0

    await wait_for(look)


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_a_database_that_goes_away_during_a_fill_costs_the_viewer_nothing(
    tmp_path: Path,
    fal: FakeFal,
    faulty_bucket: FaultyBucket,
    truth: Truth,
    postgres_url: str,
    gate: Gate,
    how: str,
) -> None:
    data, warm, rest = make_clip(SIZE, 1), make_clip(SIZE, 2), asyncio.Event()
    url = through(gate, postgres_url)
    async with origin_of(tmp_path, fal, truth, url, facts_ttl="300ms") as origin:
        await origin.clip("warm", warm)
        said, _ = await origin.get("warm")
        await origin.stored("warm")
        await origin.clip("cold", data, Behaviour(stall_at=SIZE // 2, stall_until=rest))
        viewer = asyncio.create_task(origin.get("cold"))
        await wait_for(lambda: begun(origin, "cold"))
        await close(gate, how)
        rest.set()
        _, body = await viewer
        assert body == data
        await waits(origin, 1)  # stored in the bucket, kept for the catalog

        await asyncio.sleep(0.35)  # what was known of both is too old by now
        for name, clip in (("warm", warm), ("cold", data)):
            began = time.monotonic()
            hit, body = await origin.get(name)
            assert body == clip
            assert hit.headers["Cache-Status"] == "firstview; hit; detail=disk"
            assert time.monotonic() - began < 4
            if name == "warm":
                assert hit.headers["ETag"] == said.headers["ETag"]
        await gate.open()
        await origin.stored("cold", 30)
        assert truth.body("cold") == data
        assert (origin.gets("cold"), len(faulty_bucket.seen("PutObject"))) == (1, 2)
        assert origin.leftovers() == []


async def begun(origin: Origin, request_id: str) -> bool:
    flight = origin.app.flights.get(request_id)
    return flight is not None and flight.facts is not None


async def test_a_restart_while_only_the_catalog_is_missing_the_clip_writes_nothing_twice(
    tmp_path: Path,
    fal: FakeFal,
    faulty_bucket: FaultyBucket,
    truth: Truth,
    postgres_url: str,
    gate: Gate,
) -> None:
    data, rest = make_clip(SIZE, 3), asyncio.Event()
    url = through(gate, postgres_url)
    async with origin_of(tmp_path, fal, truth, url) as origin:
        await origin.clip("clip", data, Behaviour(stall_at=SIZE // 2, stall_until=rest))
        viewer = asyncio.create_task(origin.get("clip"))
        await wait_for(lambda: begun(origin, "clip"))
        await gate.shut()
        rest.set()
        _, body = await viewer
        assert body == data
        await waits(origin, 1)
    await gate.open()
    async with origin_of(tmp_path, fal, truth, url) as again:
        await again.stored("clip")
        assert truth.body("clip") == data
        assert [seen.status for seen in faulty_bucket.seen("PutObject")] == [200, 412]
        assert again.leftovers() == []
    assert len(fal.gets()) == 1


async def test_without_a_catalog_an_unknown_clip_is_not_called_unknown(
    tmp_path: Path,
    fal: FakeFal,
    faulty_bucket: FaultyBucket,
    truth: Truth,
    postgres_url: str,
    gate: Gate,
) -> None:
    """Peers 29 (nginx-s3-gateway): an outage never looks like "gone"."""
    data = make_clip(SIZE, 4)
    truth.put("there", data)
    async with origin_of(tmp_path, fal, truth, through(gate, postgres_url)) as origin:
        await gate.shut()
        response, _ = await origin.get("nobody-knows")
        assert response.status == 503
        assert response.headers["Retry-After"]
        assert response.headers["Cache-Control"] == "no-store"
        response, body = await origin.get("there")  # the bucket is the truth of what is owned
        assert (response.status, body) == (200, data)


async def test_a_catalog_that_is_locked_for_writing_costs_the_viewer_nothing(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    data, file = make_clip(SIZE, 5), tmp_path / "locked.sqlite"
    async with origin_of(tmp_path, fal, truth, f"sqlite:///{file}") as origin:
        await origin.clip("clip", data)
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            _, body = await origin.get("clip")
            assert body == data
            assert time.monotonic() - began < 4
            await waits(origin, 1)
            hit, body = await origin.get("clip")
            assert body == data
            assert hit.headers["Cache-Status"] == "firstview; hit; detail=disk"
            other.execute("ROLLBACK")
        row = await origin.stored("clip", 30)
        assert row.sha256 is not None
        assert origin.gets("clip") == 1
        assert origin.leftovers() == []
