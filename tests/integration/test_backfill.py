"""Backfills follow what they have asked for, whoever does it, on a real catalog."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proxy.catalog.engine import Catalog, open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.job_rows import NewJob
from proxy.catalog.jobs import Jobs
from proxy.catalog.search import Search
from proxy.catalog.sweeping import Sweeping
from proxy.cli import mirror_clips
from proxy.cli.mirror_clips import AllClips, NamedClips
from proxy.clock import Clock
from proxy.errors import CatalogUnavailable
from proxy.jobs import backfill as module
from proxy.jobs.backfill import TRIES, Backfill
from proxy.jobs.tally import Tally
from proxy.jobs.verdict import Outcome
from proxy.records import ClipFacts, Generation, Job, JobKind, Registration
from tests.fixtures.origin import wait_for

LONG_AGO = datetime(2026, 11, 1, tzinfo=UTC)
MIRROR, RESOLVE = JobKind.MIRROR, JobKind.RESOLVE
LEASE = timedelta(minutes=1)


class Looking(Sweeping):
    """The real one, behind a database that can be away."""

    away = False

    async def jobs_of(self, ids: Sequence[str]) -> dict[str, list[Job]]:
        if self.away:
            raise CatalogUnavailable
        return await super().jobs_of(ids)


class Bench:
    """A catalog, a backfill on it, and a worker of another process, by hand."""

    def __init__(self, catalog: Catalog) -> None:
        self.generations = Generations(catalog, clip_url=str)
        self.jobs, self.search = Jobs(catalog), Search(catalog)
        self.looking = Looking(catalog, expires_after=None)
        self.troubles: list[str] = []
        self.tally = Tally(on_trouble=self.troubles.append)
        self.stop, self.woken = asyncio.Event(), 0
        self.backfill = self.make()
        self.task: asyncio.Task[None] | None = None

    def make(self, **changes: Any) -> Backfill:
        self.backfill = Backfill(self.tally, **{"clock": Clock(), "poll": 0.02, **changes})
        return self.backfill

    def wake(self) -> None:
        self.woken += 1

    async def put(self, *ids: str, **known: Any) -> None:
        """Register clips that are available, the first of them the newest."""
        await self.generations.register(
            [
                Registration(
                    request_id=name,
                    created_at=LONG_AGO - timedelta(seconds=place),
                    **{"fal_url": f"https://fal.media/{name}.mp4", **known},
                )
                for place, name in enumerate(ids)
            ]
        )

    def start(self, *ids: str) -> None:
        clips = NamedClips(ids, self.looking, self.tally)
        self.begin(clips if ids else AllClips(self.search, model=None, since=None))

    def begin(self, clips: Any) -> None:
        self.task = asyncio.create_task(
            self.backfill.run(clips, self.jobs, self.looking, stop=self.stop, wake=self.wake)
        )

    async def ended(self) -> Tally:
        assert self.task is not None
        async with asyncio.timeout(10):
            await self.task
        return self.tally

    async def claim(self, count: int = 1, kind: JobKind = MIRROR) -> list[Job]:
        """Claim so many jobs, when they are there."""
        claimed: list[Job] = []

        async def look() -> bool:
            claimed.extend(await self.jobs.claim(kind, "other", count - len(claimed), LEASE))
            return len(claimed) == count

        await wait_for(look)
        return claimed

    async def store(self, request_id: str) -> None:
        row = await self.generations.get(request_id)
        assert row is not None
        facts = ClipFacts(request_id=request_id, length=9, etag="e", last_modified=LONG_AGO)
        assert await self.generations.mark_stored(request_id, row.fal_url, facts, None, LONG_AGO)

    async def fail(self, request_id: str, *, counted: bool = True) -> Job:
        """Fail once, without a wait; the job is left as it was claimed."""
        [job] = await self.claim()
        assert job.request_id == request_id
        error = "not-a-clip: HTML"
        await self.jobs.postpone(job, wait=timedelta(0), error=error, counted=counted)
        return job


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    catalog = await open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite")
    bench = Bench(catalog)
    yield bench
    if bench.task is not None:
        bench.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await bench.task
    await catalog.close()


async def test_clips_that_another_process_stores_are_counted(bench: Bench) -> None:
    await bench.put("a", "b")
    bench.start()
    for job in await bench.claim(2):
        assert job.asked
        await bench.store(job.request_id)
    tally = await bench.ended()
    assert (tally.stored, tally.failed, len(bench.backfill)) == (2, 0, 0)
    assert bench.woken


async def test_what_no_job_could_help_is_told_at_once(bench: Bench) -> None:
    await bench.put("owned", "broken")
    await bench.store("owned")
    await bench.put("early", "nameless", fal_url=None, model="fal-ai/veo3")
    await bench.put("blank", fal_url=None)
    await bench.generations.mark_failed("dud", "too dark")
    bench.start("owned", "early", "blank", "dud", "never-heard-of")
    tally = await bench.ended()
    assert (tally.already_stored, tally.failed) == (1, 4)
    reasons = {failure.request_id: failure.reason for failure in tally.first_failures}
    assert "FAL_KEY" in reasons["early"]
    assert "no model" in reasons["blank"]
    assert reasons["dud"] == "clip-failed: too dark"
    assert reasons["never-heard-of"].startswith("unknown-clip: ")
    assert tally.reasons == {"clip-not-ready": 2, "clip-failed": 1, "unknown-clip": 1}
    assert (await bench.jobs.list()).items == ()


async def test_a_job_that_dies_is_a_failure_with_its_reason(bench: Bench) -> None:
    await bench.put("a")
    bench.start()
    [job] = await bench.claim()
    await bench.jobs.bury(job, "source-untrusted: evil.example")
    tally = await bench.ended()
    assert (tally.failed, tally.unfinished) == (1, 0)
    assert tally.first_failures[0].reason == "source-untrusted: evil.example"


async def test_a_clip_that_fails_three_times_is_left_to_the_workers(bench: Bench) -> None:
    await bench.put("a")
    bench.start()
    for _ in range(TRIES):
        await bench.fail("a")
    tally = await bench.ended()
    assert (tally.failed, tally.unfinished) == (1, 1)
    assert await bench.jobs.alive(["a"]) == {"a"}


async def test_failures_of_former_runs_do_not_count_and_cost_no_waiting(bench: Bench) -> None:
    await bench.put("a")
    await bench.jobs.file([_job("a")])
    for _ in range(5):
        await bench.fail("a")
    [job] = await bench.claim()
    await bench.jobs.postpone(job, wait=timedelta(hours=1), error="x")
    bench.start()
    [job] = await bench.claim()
    assert job.attempts == 0
    await bench.store("a")
    assert (await bench.ended()).stored == 1


@pytest.mark.parametrize("revive", [False, True])
async def test_dead_jobs_stay_dead_unless_they_are_asked_for(bench: Bench, *, revive: bool) -> None:
    await bench.put("a")
    await bench.jobs.file([_job("a")])
    [job] = await bench.claim()
    await bench.jobs.bury(job, "not-a-clip: HTML")
    bench.make(revive=revive)
    bench.start()
    if revive:
        await bench.claim()
        await bench.store("a")
    tally = await bench.ended()
    assert (tally.stored, tally.failed) == ((1, 0) if revive else (0, 1))


async def test_a_pending_clip_is_followed_from_fals_answer_to_the_bucket(bench: Bench) -> None:
    await bench.put("a", fal_url=None, model="fal-ai/veo3")
    bench.make(can_resolve=True)
    bench.start("a")
    [job] = await bench.claim(kind=RESOLVE)
    assert job.asked
    await bench.put("a")

    async def is_asked() -> bool:
        mirror = await bench.jobs.get("a", MIRROR)
        return mirror is not None and mirror.asked

    await wait_for(is_asked)
    await bench.claim()
    await bench.store("a")
    assert (await bench.ended()).stored == 1


async def test_a_generation_that_goes_on_and_on_is_not_waited_for(bench: Bench) -> None:
    await bench.put("a", fal_url=None, model="fal-ai/veo3")
    bench.make(can_resolve=True, patience=0.1)
    bench.start("a")
    tally = await bench.ended()
    assert (tally.failed, tally.unfinished) == (1, 1)
    assert await bench.jobs.alive(["a"]) == {"a"}


async def test_only_a_window_of_all_clips_is_asked_for_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WINDOW", 30)
    for place in (module, mirror_clips):
        monkeypatch.setattr(place, "PAGE", 30)
    await bench.put(*(f"c{number}" for number in range(40)))
    bench.start()
    jobs = await bench.claim(30)
    assert await bench.jobs.claim(MIRROR, "other", 1, LEASE) == []
    for job in jobs:
        await bench.jobs.bury(job, "x: y")
    for job in await bench.claim(10):
        await bench.store(job.request_id)
    tally = await bench.ended()
    assert (tally.stored, tally.failed) == (10, 30)
    assert len(tally.first_failures) == 20


async def test_what_this_process_stores_is_heard_without_looking(bench: Bench) -> None:
    await bench.put("a")
    bench.make(poll=3600)
    bench.start()
    [job] = await bench.claim()
    await bench.store("a")
    bench.backfill.heard(job, Outcome.DONE, None)
    assert (await bench.ended()).stored == 1


async def test_stopping_leaves_the_jobs_where_they_are(bench: Bench) -> None:
    await bench.put("a", "b")
    bench.start()
    await bench.claim()
    bench.stop.set()
    tally = await bench.ended()
    assert (tally.settled, len(bench.backfill)) == (0, 2)
    assert await bench.jobs.alive(["a", "b"]) == {"a", "b"}


async def test_trouble_that_is_no_clips_own_ends_it_after_a_while(bench: Bench) -> None:
    await bench.put("a")
    bench.make(patience=0.3)
    bench.start()
    while bench.task is not None and not bench.task.done():
        job = await bench.fail("a", counted=False)
        bench.backfill.heard(job, Outcome.POSTPONED, "bucket-unavailable: away")
        await asyncio.sleep(0.05)
    tally = await bench.ended()
    assert (tally.away, tally.settled) == ("not-a-clip: HTML", 0)
    assert bench.troubles == ["not-a-clip: HTML"]
    assert await bench.jobs.alive(["a"]) == {"a"}


async def test_a_catalog_that_is_away_for_a_moment_ends_nothing(bench: Bench) -> None:
    await bench.put("a")
    bench.start()
    [job] = await bench.claim()
    bench.looking.away = True

    async def is_told() -> bool:
        return bool(bench.troubles)

    await wait_for(is_told)
    await bench.store(job.request_id)
    bench.looking.away = False
    tally = await bench.ended()
    assert (tally.stored, tally.away) == (1, None)


async def test_a_catalog_that_stays_away_ends_it_and_is_named(bench: Bench) -> None:
    await bench.put("a")
    bench.make(patience=0.1)
    bench.looking.away = True
    bench.start()
    tally = await bench.ended()
    assert tally.away is not None
    assert tally.away.startswith("catalog-unavailable: ")


async def test_counting_what_is_not_stored_follows_the_filters(bench: Bench) -> None:
    await bench.put("a", "b", model="veo")
    await bench.put("c", model="kling")
    await bench.store("a")
    count = bench.looking.count_unstored
    assert await count() == 2
    assert await count(model="veo") == 1
    assert await count(since=LONG_AGO) == 1
    assert await count(model="veo", since=LONG_AGO) == 0
    found: list[Generation] = []
    clips = AllClips(bench.search, model="veo", since=None)
    while (some := await clips.next()) is not None:
        found += some
    assert [row.request_id for row in found] == ["b"]


def _job(request_id: str) -> NewJob:
    return NewJob(request_id=request_id, kind=MIRROR, created_at=LONG_AGO)
