"""One disk, several processes: one budget, one janitor, and whatever one forgets all forget."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from proxy.records import Registration
from proxy.storage import keys
from proxy.storage.file_lock import FileLock
from proxy.storage.forgets import RING
from tests.fakes.bucket import FaultyBucket
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.cache import FACTS, disk_cache
from tests.fixtures.origin import ADMIN_TOKEN, Origin, running_origin, wait_for
from tests.fixtures.truth import Truth

SIZE = 100_000
BUDGET = 10 * (SIZE + 10_000)
DATA, OTHER = make_clip(SIZE, 90), make_clip(SIZE, 91)


# -- one budget ---


@dataclass
class Putting:
    """A process that puts clips into the cache, and what it has said so far."""

    process: asyncio.subprocess.Process
    said: Counter[str] = field(default_factory=Counter)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said[line.decode().split()[0]] += 1

    async def says(self, word: str, times: int = 1) -> None:
        async def heard() -> bool:
            assert self.process.returncode is None, self.said
            return self.said[word] >= times

        await wait_for(heard, 60)


@asynccontextmanager
async def putting(data_dir: Path, name: str, count: int, pin: int = 0) -> AsyncIterator[Putting]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fixtures.cache_process"),
        *(str(data_dir), str(BUDGET), str(SIZE), name, str(count), str(pin)),
        stdout=asyncio.subprocess.PIPE,
    )
    putting = Putting(process)
    listening = asyncio.create_task(putting.listen())
    try:
        yield putting
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening


def on_disk(data_dir: Path) -> int:
    """Bytes below the cache and on their way there, while nothing moves from one to the other."""
    run, total = keys.run_dir(data_dir), 0
    if not run.exists():
        return 0
    lock = FileLock(keys.lock_path(run, "cache"))
    with lock.held():
        for path in (*data_dir.glob("cache/*/*"), *data_dir.glob("incoming/*")):
            total += path.stat().st_size
    lock.close()
    return total


@pytest.mark.timeout(180)  # processes start, which a busy machine takes its time over
@pytest.mark.blocking  # this test walks the folders itself
async def test_two_processes_that_fill_one_budget_at_once_never_exceed_it(tmp_path: Path) -> None:
    most, count = 0, 60
    async with (
        putting(tmp_path, "one", count) as one,
        putting(tmp_path, "two", count) as two,
    ):

        async def done() -> bool:
            nonlocal most
            most = max(most, on_disk(tmp_path))
            return all(each.said["put"] + each.said["full"] == count for each in (one, two))

        await wait_for(done, 120)
        assert one.said["overrun"] == two.said["overrun"] == 0
        assert one.said["full"] == two.said["full"] == 0
    assert BUDGET // 2 < most <= BUDGET


@pytest.mark.timeout(180)
async def test_when_the_janitor_is_killed_another_process_goes_on(tmp_path: Path) -> None:
    async with putting(tmp_path, "one", 5) as one:
        await one.says("janitor")
        async with putting(tmp_path, "two", 40) as two:
            await two.says("put", 20)
            one.process.kill()
            await two.says("put", 40)
            await two.says("janitor")
            assert two.said["full"] == 0


@pytest.mark.timeout(180)
async def test_what_a_killed_process_had_spoken_for_is_free_again(tmp_path: Path) -> None:
    async with putting(tmp_path, "one", 0, pin=8 * SIZE) as one:
        await one.says("pinned")
        async with putting(tmp_path, "two", 1, pin=8 * SIZE) as two:
            await two.says("asking")
            await asyncio.sleep(0.2)
            assert two.said["pinned"] == 0
            one.process.kill()
            await two.says("put")


async def test_processes_that_share_a_disk_count_as_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        async with (
            disk_cache(tmp_path, threads, max_bytes=BUDGET) as one,
            disk_cache(tmp_path, threads, max_bytes=BUDGET, looked_through=False) as two,
        ):
            assert (one.janitor.is_leader, two.janitor.is_leader) == (True, False)
            taken = [await cache.reserve(SIZE) for cache in (one, two) for _ in range(3)]
            assert one.used == two.used == 6 * (SIZE + FACTS)
            assert await two.reserve(5 * SIZE) is None
            for reservation in taken:
                assert reservation is not None
                reservation.release()
            assert one.used == two.used == 0


# -- what one forgets ---


@pytest.fixture
async def pair(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> AsyncIterator[tuple[Origin, Origin]]:
    async with (
        running_origin(tmp_path / "data", fal, bucket_url=truth.url) as one,
        running_origin(tmp_path / "data", fal, bucket_url=truth.url) as two,
    ):
        yield one, two


async def repoint(origin: Origin, request_id: str, data: bytes) -> None:
    """Say through one process's admin API that an id means other bytes."""
    path = f"/files/other/{request_id}.mp4"
    origin.fal.add(path, data)
    async with origin.client.put(
        origin.admin(f"/api/v1/generations/{request_id}"),
        json={"fal_url": origin.fal.url(path)},
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as reply:
        assert reply.status == 200


async def landed(*origins: Origin) -> None:
    async def idle() -> bool:
        return not any(len(one.app.flights) + len(one.app.ownership) for one in origins)

    await wait_for(idle)


def how(response: aiohttp.ClientResponse) -> str:
    return response.headers["Cache-Status"]


async def test_what_one_process_has_cached_is_a_hit_in_the_other(
    pair: tuple[Origin, Origin], faulty_bucket: FaultyBucket
) -> None:
    one, two = pair
    await one.clip("clip", DATA)
    await one.get("clip")
    await one.stored("clip")
    hit, body = await two.get("clip")
    assert (how(hit), body) == ("firstview; hit; detail=disk", DATA)
    assert faulty_bucket.seen("GetObject") == []


async def test_what_one_process_forgets_is_a_miss_in_the_other_at_the_next_request(
    pair: tuple[Origin, Origin],
) -> None:
    one, two = pair
    await one.clip("clip", DATA)
    await one.get("clip")
    await one.stored("clip")
    for _ in range(2):
        hit, body = await two.get("clip")
        assert (how(hit), body) == ("firstview; hit; detail=disk", DATA)
    await repoint(one, "clip", OTHER)
    reply, body = await two.get("clip")
    assert body == OTHER
    assert "hit" not in how(reply)
    await landed(one, two)
    hit, body = await one.get("clip")
    assert body == OTHER


async def test_a_fill_whose_id_another_process_forgets_is_finished_and_kept_nowhere(
    pair: tuple[Origin, Origin],
) -> None:
    one, two = pair
    rest = asyncio.Event()
    await one.clip("clip", DATA, Behaviour(stall_at=SIZE // 2, stall_until=rest))
    viewing = asyncio.create_task(two.get("clip"))

    async def begun() -> bool:
        flight = two.app.flights.get("clip")
        return flight is not None and flight.is_ready

    await wait_for(begun)
    await repoint(one, "clip", OTHER)

    async def superseded() -> bool:
        return two.app.flights.get("clip") is None

    await wait_for(superseded)
    rest.set()
    _, body = await viewing
    assert body == DATA  # it was the clip when it was asked for
    _, body = await two.get("clip")
    assert body == OTHER
    await landed(one, two)
    _, body = await one.get("clip")
    assert body == OTHER


@pytest.mark.blocking  # or the other process would hear of each at once
async def test_who_has_missed_too_much_believes_nothing_that_it_remembers(
    pair: tuple[Origin, Origin],
) -> None:
    one, two = pair
    await one.clip("clip", DATA)
    await one.get("clip")
    await one.stored("clip")
    await two.get("clip")
    path = "/files/other/clip.mp4"
    one.fal.add(path, OTHER)
    await one.app.generations.register([Registration(request_id="clip", fal_url=one.fal.url(path))])
    one.app.disk._files.forget("clip")
    for number in range(RING):
        one.app.disk._files.forget(f"other-{number}")
    _, body = await two.get("clip")
    assert body == OTHER


async def test_what_was_evicted_does_not_stay_open_anywhere(pair: tuple[Origin, Origin]) -> None:
    one, two = pair
    await one.clip("clip", DATA)
    await one.get("clip")
    await one.stored("clip")
    await two.get("clip")
    assert two.app.places.files.get("clip") is not None
    for path in (one.app.settings.data_dir / "cache").glob("*/*"):
        path.unlink()

    async def closed() -> bool:
        return all(each.app.places.files.get("clip") is None for each in pair)

    await wait_for(closed)


async def test_many_ids_forgotten_at_once_are_all_heard_of(pair: tuple[Origin, Origin]) -> None:
    one, two = pair
    names = [f"clip-{n}" for n in range(8)]
    for name in names:
        await one.clip(name, DATA)
        await one.get(name)
        await one.stored(name)
        await two.get(name)
    await asyncio.gather(*(repoint(one, name, OTHER) for name in names))
    replies = await asyncio.gather(*(two.get(name) for name in names))
    assert [body == OTHER for _, body in replies] == [True] * len(names)
