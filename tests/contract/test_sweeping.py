"""Sweeps are planned alike in SQLite and in PostgreSQL, whatever the size of the table."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog.engine import Catalog, open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.jobs import Jobs
from proxy.catalog.sweeping import Filed, Sweeping
from proxy.catalog.tables import jobs as jobs_table
from proxy.records import ClipFacts, JobKind, Registration, Status

NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)


@pytest.fixture
def sweeping(catalog: Catalog) -> Sweeping:
    return Sweeping(catalog, expires_after=None)


@pytest.fixture
def generations(catalog: Catalog) -> Generations:
    return Generations(catalog, clip_url=lambda name: f"https://cdn.example/videos/{name}.mp4")


async def put(
    generations: Generations,
    catalog: Catalog,
    *ids: str,
    at: datetime = NOON,
    url: bool = True,
    model: str | None = "fal-ai/veo3",
) -> None:
    """Register generations that have no job, as an older firstview or an import left them."""
    await generations.register(
        [
            Registration(
                request_id=name,
                fal_url=f"https://fal.media/{name}.mp4" if url else None,
                model=model,
                created_at=at,
            )
            for name in ids
        ]
    )

    async def forget(connection: AsyncConnection) -> None:
        await connection.execute(jobs_table.delete().where(jobs_table.c.request_id.in_(ids)))

    await catalog.write(forget)


async def store(generations: Generations, request_id: str) -> None:
    facts = ClipFacts(request_id=request_id, length=10, etag="e", last_modified=NOON)
    url = f"https://fal.media/{request_id}.mp4"
    assert await generations.mark_stored(request_id, url, facts, "0" * 64, NOON)


async def filed(catalog: Catalog) -> list[tuple[str, JobKind]]:
    async def work(connection: AsyncConnection) -> list[tuple[str, JobKind]]:
        query = select(jobs_table.c.request_id, jobs_table.c.kind).order_by(*jobs_table.primary_key)
        return [(row[0], row[1]) for row in await connection.execute(query)]

    return await catalog.read(work)


# --- filing -------------------------------------------------------------------------------------


async def test_a_clip_that_is_not_stored_gets_a_job_once_it_is_old_enough(
    catalog: Catalog, generations: Generations, sweeping: Sweeping
) -> None:
    await put(generations, catalog, "old", "stored")
    await put(generations, catalog, "young", at=NOON + HOUR)
    await put(generations, catalog, "pending", url=False)
    await store(generations, "stored")
    assert await sweeping.file_unstored(NOON + HOUR) == Filed(1, None)
    assert await filed(catalog) == [("old", JobKind.MIRROR)]
    job = await Jobs(catalog).get("old", JobKind.MIRROR)
    assert job is not None
    assert (job.created_at, job.expires_at, job.asked, job.attempts) == (NOON, None, False, 0)
    assert timedelta(0) <= datetime.now(UTC) - job.due_at < HOUR
    assert await sweeping.file_unstored(NOON + HOUR) == Filed(0, None)


async def test_a_job_says_when_its_source_expires(
    catalog: Catalog, generations: Generations
) -> None:
    await put(generations, catalog, "begun")
    await put(generations, catalog, "made")
    await generations.register([Registration(request_id="made", completed_at=NOON + HOUR)])
    sweeping = Sweeping(catalog, expires_after=WEEK)
    assert (await sweeping.file_unstored(NOON + WEEK)).filed == 2
    for name, made in (("begun", NOON), ("made", NOON + HOUR)):
        job = await Jobs(catalog).get(name, JobKind.MIRROR)
        assert job is not None
        assert job.expires_at == made + WEEK


async def test_what_is_pending_for_too_long_is_asked_for_if_fal_can_be_asked(
    catalog: Catalog, generations: Generations, sweeping: Sweeping
) -> None:
    await put(generations, catalog, "asked", url=False)
    await put(generations, catalog, "nameless", url=False, model=None)
    await put(generations, catalog, "known")
    await put(generations, catalog, "young", at=NOON + HOUR, url=False)
    assert await sweeping.file_pending(NOON + HOUR) == Filed(1, None)
    assert await filed(catalog) == [("asked", JobKind.RESOLVE)]


async def test_dead_jobs_stay_dead(
    catalog: Catalog, generations: Generations, sweeping: Sweeping
) -> None:
    await put(generations, catalog, "a")
    await sweeping.file_unstored(NOON + HOUR)
    jobs = Jobs(catalog)
    (claimed,) = await jobs.claim(JobKind.MIRROR, "me", 1, HOUR)
    assert await jobs.bury(claimed, "no more")
    assert await sweeping.file_unstored(NOON + HOUR) == Filed(0, None)
    job = await jobs.get("a", JobKind.MIRROR)
    assert job is not None
    assert job.dead_at is not None


async def test_pages_go_through_all_of_it_also_where_all_have_the_same_time(
    catalog: Catalog, generations: Generations, sweeping: Sweeping
) -> None:
    await put(generations, catalog, *(f"a{n:03}" for n in range(25)))
    await put(generations, catalog, *(f"b{n:03}" for n in range(25)), at=NOON - HOUR)
    place, counts = None, []
    while True:
        page = await sweeping.file_unstored(NOON + HOUR, place, 10)
        counts.append(page.filed)
        place = page.next
        if place is None:
            break
    assert counts == [10, 10, 10, 10, 10, 0]
    assert len(await filed(catalog)) == 50


async def test_a_page_whose_jobs_are_there_already_leads_on_to_the_next(
    catalog: Catalog, generations: Generations, sweeping: Sweeping
) -> None:
    await put(generations, catalog, "a", "b", "c", "d")
    first = await sweeping.file_unstored(NOON + HOUR, limit=2)
    assert first.filed == 2
    again = await sweeping.file_unstored(NOON + HOUR, limit=2)
    assert again == Filed(0, first.next)
    assert (await sweeping.file_unstored(NOON + HOUR, again.next, 3)).filed == 2


@pytest.mark.parametrize("place", ["", "nonsense", "1.../x"])
async def test_a_place_that_cannot_be_read_is_the_beginning(
    catalog: Catalog, generations: Generations, sweeping: Sweeping, place: str
) -> None:
    await put(generations, catalog, "a")
    await store(generations, "a")
    assert [row.request_id for row in await sweeping.stored_after(place, 5)] == ["a"]


# --- looking again ------------------------------------------------------------------------------


async def test_stored_clips_come_in_pages_oldest_first_and_no_others(
    catalog: Catalog, generations: Generations, sweeping: Sweeping
) -> None:
    await put(generations, catalog, "c", "b", "x")
    await put(generations, catalog, "a", at=NOON + HOUR)
    for name in ("a", "b", "c"):
        await store(generations, name)
    first = await sweeping.stored_after(None, 2)
    assert [row.request_id for row in first] == ["b", "c"]
    assert all(row.status is Status.STORED for row in first)
    rest = await sweeping.stored_after(sweeping.place_of(first[-1]), 2)
    assert [row.request_id for row in rest] == ["a"]
    assert await sweeping.stored_after(sweeping.place_of(rest[-1]), 2) == []


async def test_unknown_ids_mean_nothing(
    catalog: Catalog, generations: Generations, sweeping: Sweeping
) -> None:
    await put(generations, catalog, "a", "b")
    found = await sweeping.meanings(["a", "b", "nobody"])
    assert {name: row.status for name, row in found.items()} == {
        "a": Status.AVAILABLE,
        "b": Status.AVAILABLE,
    }
    assert await sweeping.meanings([]) == {}


# --- a million ----------------------------------------------------------------------------------

MILLION = 1_000_000
_SLOW = 2.0
"""Other tests run beside this one, and share its caches; alone it takes a fraction.

What counts is time on a processor, of all threads: waiting for one is the other tests' doing.
"""
_FILL = f"""
INSERT INTO generations (request_id, status, model, fal_url, created_at, etag, content_length)
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {MILLION - 1})
SELECT printf('%016x', i * 2654435761), CASE WHEN i % 10 < 3 THEN 'available' ELSE 'stored' END,
       'fal-ai/veo3', 'https://fal.media/' || i, 1700000000000000 + i * 1000, 'e', 10
FROM n
"""
_JOBS = """
INSERT INTO jobs (request_id, kind, created_at, due_at)
SELECT request_id, 'mirror', created_at, created_at FROM generations
WHERE status = 'available' ORDER BY request_id LIMIT 250000
"""


def own_memory() -> int:
    """KiB that are this process's alone; what is mapped of the database is the page cache's."""
    [line] = [
        line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line
    ]
    return int(line.split()[1])


@pytest.mark.timeout(240)  # most of it goes by before anything is measured
@pytest.mark.blocking  # a million rows are made past the catalog
async def test_a_sweep_of_a_million_generations_is_planned_in_two_seconds(tmp_path: Path) -> None:
    """With 300,000 that are not stored, of which 250,000 have a job and 50,000 get one."""
    catalog = await open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite", migrate=True)
    with closing(sqlite3.connect(tmp_path / "catalog.sqlite", isolation_level=None)) as filling:
        for statement in ("PRAGMA synchronous = OFF", _FILL, _JOBS):
            filling.execute(statement)
    sweeping = Sweeping(catalog, expires_after=WEEK)
    before = most = own_memory()
    for expected in (50_000, 0):
        started, longest, total, place = time.process_time(), 0.0, 0, None
        while True:
            page_started = time.process_time()
            page = await sweeping.file_unstored(NOON, place)
            longest = max(longest, time.process_time() - page_started)
            total += page.filed
            most = max(most, own_memory())
            place = page.next
            if place is None:
                break
        assert (await sweeping.file_pending(NOON)).filed == 0
        took = time.process_time() - started
        print(f"{total} filed in {took:.2f} s, longest page {longest * 1000:.0f} ms")
        assert total == expected
        assert took < 2.0 * _SLOW
        assert longest < 0.5 * _SLOW
    started = time.process_time()
    assert len(await sweeping.stored_after("1700000500000000.0", 100)) == 100
    print(f"a page of stored clips in {(time.process_time() - started) * 1000:.1f} ms")
    assert time.process_time() - started < 0.1 * _SLOW
    print(f"memory grew by {(most - before) / 1024:.1f} MiB")
    assert most - before < 64 * 1024
    await catalog.close()
