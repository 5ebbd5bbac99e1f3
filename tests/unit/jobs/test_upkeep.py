"""What each process does for its own disk: files that are nobody's clip go, all others stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxy.errors import CatalogUnavailable
from proxy.jobs import upkeep as upkeep_module
from proxy.jobs.upkeep import Upkeep
from proxy.records import Generation
from proxy.storage.disk_cache import DiskCache
from tests.fixtures.cache import disk_cache, is_cached
from tests.fixtures.origin import wait_for
from tests.fixtures.swept import DATA, Stage, facts_of


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


class Shelf:
    """A disk cache, and its upkeep."""

    def __init__(self, stage: Stage, disk: DiskCache) -> None:
        self.stage, self.disk, self.retried = stage, disk, 0

    def upkeep(self, **changes: Any) -> Upkeep:
        return Upkeep(
            self.stage.sweeping,
            self.disk,
            self.stage.settings(**changes),
            clock=self.stage.clock,
            metrics=self.stage.metrics,
            retry_kept=self.retry,
        )

    def retry(self) -> None:
        self.retried += 1

    async def cache(self, name: str, etag: str = "e" * 32) -> None:
        path = self.stage.folder / f"{name}.part"
        await asyncio.to_thread(path.write_bytes, DATA)
        reservation = await self.disk.reserve(len(DATA))
        assert reservation is not None
        await self.disk.adopt(path, facts_of(name, etag), "", reservation)


@pytest.fixture
async def shelf(stage: Stage, threads: ThreadPoolExecutor) -> AsyncIterator[Shelf]:
    async with disk_cache(stage.folder, threads, max_bytes=10_000_000) as disk:
        yield Shelf(stage, disk)


async def test_a_cached_file_that_is_nobodys_clip_any_more_is_removed(
    stage: Stage, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep_module, "AT_ONCE", 2)
    await stage.own("same", "moved", "lost")
    stage.path("lost").unlink()
    await stage.own("gone", url=False)
    stage.path("gone").unlink()
    await stage.checker().check()
    await stage.generations.mark_failed("failed", "no clip")
    await stage.put("pending", url=False)
    for name in ("same", "unknown", "failed", "pending", "lost", "gone"):
        await shelf.cache(name)
    await shelf.cache("moved", "f" * 32)
    parts = [await shelf.upkeep().disown(part, 2) for part in (0, 1)]
    assert await stage.status("gone") == "lost"
    assert sum(parts) == 4
    left = {
        name for name in ("same", "moved", "unknown", "gone") if await is_cached(shelf.disk, name)
    }
    # Nobody has another copy of the clip that is lost.
    assert left == {"same", "unknown", "gone"}
    assert stage.counted("disowned") == 4
    assert await shelf.upkeep().disown() == 0


async def test_a_clip_that_takes_the_place_of_a_disowned_one_stays(
    stage: Stage, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.own("a")
    await shelf.cache("a", "f" * 32)
    meanings = stage.sweeping.meanings

    async def slowly(ids: list[str]) -> dict[str, Generation]:
        found = await meanings(ids)
        await shelf.cache("a", "e" * 32)
        return found

    monkeypatch.setattr(stage.sweeping, "meanings", slowly)
    assert await shelf.upkeep().disown() == 0
    assert await is_cached(shelf.disk, "a")


async def test_upkeep_outlives_a_catalog_that_is_away_and_retries_what_is_kept(
    stage: Stage, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shelf.cache("a")

    async def away(_ids: list[str]) -> dict[str, Generation]:
        raise CatalogUnavailable

    monkeypatch.setattr(stage.sweeping, "meanings", away)
    running = asyncio.create_task(shelf.upkeep(sweep_every="20ms").run())

    async def retried() -> bool:
        return shelf.retried > 2

    await wait_for(retried)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
