"""The worker on a real jobs table: what it takes, what it reports, and what survives it."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockBuster
from structlog.testing import capture_logs

from proxy.catalog.engine import open_catalog
from proxy.catalog.job_rows import NewJob
from proxy.catalog.jobs import Jobs
from proxy.clock import Clock
from proxy.errors import CatalogUnavailable, NotAClip
from proxy.jobs.runs import Key
from proxy.jobs.verdict import DONE, Outcome, Verdict
from proxy.jobs.worker import Worker
from proxy.records import Job, JobKind, JobState
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.upstream.breaker import HostResting
from tests.fixtures.catalog import let_asyncpg_read_its_files
from tests.fixtures.origin import settings_for, wait_for

MIRROR, RESOLVE = JobKind.MIRROR, JobKind.RESOLVE


class Table(Jobs):
    """The real jobs table, behind a database that can be away."""

    away = False
    claims = 0
    refused = 0

    def _look(self) -> None:
        if self.away:
            self.refused += 1
            raise CatalogUnavailable

    async def claim(self, *arguments: Any, **named: Any) -> list[Job]:
        self.claims += 1
        self._look()
        return await super().claim(*arguments, **named)

    async def extend(self, held: Sequence[Job], lease: timedelta) -> set[Key]:
        self._look()
        return await super().extend(held, lease)

    async def complete(self, job: Job) -> bool:
        self._look()
        return await super().complete(job)

    async def put(self, *ids: str, kind: JobKind = MIRROR) -> None:
        """File jobs, the first of them the newest."""
        now = datetime.now(UTC)
        await self.file(
            [
                NewJob(request_id=name, kind=kind, created_at=now - timedelta(seconds=place))
                for place, name in enumerate(ids)
            ]
        )

    async def of(self, name: str, kind: JobKind = MIRROR) -> Job:
        """The job of that name."""
        found = await self.get(name, kind)
        assert found is not None
        return found

    async def left(self) -> int:
        """How many jobs there are."""
        return len((await self.list(limit=500)).items)


class Work:
    """A handler that can be held up, and that remembers what it was given."""

    def __init__(self, *said: Verdict | BaseException, held: bool = False) -> None:
        self.said = list(said) or [DONE]
        self.go = asyncio.Event()
        if not held:
            self.go.set()
        self.jobs: list[Job] = []
        self.running: set[str] = set()
        self.most = 0
        self.cancelled: list[str] = []

    async def __call__(self, job: Job) -> Verdict:
        self.jobs.append(job)
        self.running.add(job.request_id)
        self.most = max(self.most, len(self.running))
        try:
            await self.go.wait()
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cancelled.append(job.request_id)
            raise
        finally:
            self.running.discard(job.request_id)
        said = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        if isinstance(said, BaseException):
            raise said
        return said

    def names(self) -> list[str]:
        return [job.request_id for job in self.jobs]


class Crew:
    """Starts workers, and remembers what they reported."""

    def __init__(self, table: Table, tmp_path: Path) -> None:
        self.table = table
        self.metrics = Metrics()
        self.ended: list[tuple[str, Outcome, str | None]] = []
        self._tmp_path = tmp_path
        self.tasks: list[asyncio.Task[None]] = []
        self.workers: list[Worker] = []

    def settings(self, **changes: Any) -> Settings:
        defaults = {"jobs_poll": "20ms", "job_backoff": "20ms", "job_backoff_max": "40ms"}
        return settings_for(self._tmp_path, **{**defaults, **changes})

    def start(
        self,
        mirror: Work,
        resolve: Work | None = None,
        *,
        clock: Clock | None = None,
        **changes: Any,
    ) -> Worker:
        worker = Worker(
            self.table,
            {MIRROR: mirror} if resolve is None else {MIRROR: mirror, RESOLVE: resolve},
            self.settings(**changes),
            clock=clock or Clock(),
            metrics=self.metrics,
            owner=f"worker-{len(self.workers)}",
            on_done=lambda job, outcome, error: self.ended.append((job.request_id, outcome, error)),
        )
        self.workers.append(worker)
        self.tasks.append(asyncio.create_task(worker.run()))
        return worker

    def outcomes(self) -> Counter[str]:
        return Counter(outcome.value for _, outcome, _ in self.ended)

    async def until(self, look: Callable[[], bool]) -> None:
        async def looked() -> bool:
            return look()

        await wait_for(looked)

    async def empty(self) -> None:
        """Wait until no job is left."""

        async def is_empty() -> bool:
            return await self.table.left() == 0

        await wait_for(is_empty)

    async def stop(self) -> None:
        for worker in self.workers:
            await worker.close(0.0)
        for task in self.tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def table(tmp_path: Path) -> AsyncIterator[Table]:
    catalog = await open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite")
    yield Table(catalog)
    await catalog.close()


@pytest.fixture
async def shared_table(postgres_url: str, _event_loop_guard: BlockBuster) -> AsyncIterator[Table]:
    let_asyncpg_read_its_files(_event_loop_guard)
    catalog = await open_catalog(postgres_url, migrate=True)
    yield Table(catalog)
    await catalog.close()


@pytest.fixture
async def crew(table: Table, tmp_path: Path) -> AsyncIterator[Crew]:
    crew = Crew(table, tmp_path)
    yield crew
    await crew.stop()


# --- taking jobs --------------------------------------------------------------------------------


async def test_jobs_that_are_done_are_gone(crew: Crew, table: Table) -> None:
    await table.put("a", "b", "c")
    work = Work()
    crew.start(work)
    await crew.empty()
    assert sorted(work.names()) == ["a", "b", "c"]
    await crew.until(lambda: crew.outcomes() == {"done": 3})
    assert crew.metrics.registry.get_sample_value(
        "firstview_jobs_run_total", {"kind": "mirror", "outcome": "done"}
    ) == pytest.approx(3)


async def test_a_worker_never_runs_more_than_it_has_hands_for(crew: Crew, table: Table) -> None:
    names = [f"m{number}" for number in range(30)]
    await table.put(*names)
    await table.put("r1", "r2", "r3", kind=RESOLVE)
    mirror, resolve = Work(held=True), Work(held=True)
    crew.start(mirror, resolve, mirror_concurrency=3, resolve_concurrency=2)
    await crew.until(lambda: len(mirror.running) == 3 and len(resolve.running) == 2)
    running = await table.list(state=JobState.RUNNING)
    assert len(running.items) == 5  # and the others may be taken by other workers
    mirror.go.set()
    resolve.go.set()
    await crew.empty()
    assert (mirror.most, resolve.most) == (3, 2)
    assert sorted(mirror.names()) == sorted(names)


async def test_an_idle_worker_finds_what_is_filed(crew: Crew, table: Table) -> None:
    work = Work()
    crew.start(work)
    await crew.until(lambda: table.claims > 2)
    await table.put("a")
    await crew.empty()


async def test_a_woken_worker_does_not_wait_for_its_poll(crew: Crew, table: Table) -> None:
    worker = crew.start(Work(), jobs_poll="1h")
    await crew.until(lambda: table.claims == 1)
    await table.put("a")
    worker.wake()
    await crew.empty()


async def test_the_next_job_is_taken_when_one_ends(crew: Crew, table: Table) -> None:
    await table.put(*"abcde")
    work = Work()
    crew.start(work, jobs_poll="1h", mirror_concurrency=1)
    await crew.empty()
    assert work.names() == list("abcde")


# --- what becomes of them -----------------------------------------------------------------------


async def test_a_job_that_fails_is_tried_again_until_it_is_done(crew: Crew, table: Table) -> None:
    await table.put("a")
    work = Work(NotAClip("html"), NotAClip("html"), DONE)
    crew.start(work)
    await crew.empty()
    assert [job.attempts for job in work.jobs] == [0, 1, 2]
    await crew.until(lambda: crew.outcomes() == {"postponed": 2, "done": 1})


async def test_a_job_that_keeps_failing_is_dead_with_its_last_error(
    crew: Crew, table: Table
) -> None:
    await table.put("a")
    work = Work(NotAClip("html"))
    with capture_logs() as logs:
        crew.start(work, job_attempts=3)
        await crew.until(lambda: crew.outcomes()["dead"] == 1)
    job = await table.of("a")
    assert job.state(datetime.now(UTC)) is JobState.DEAD
    assert job.last_error == "not-a-clip: html"
    assert len(work.jobs) == 3
    assert [line["request_id"] for line in logs if line["log_level"] == "error"] == ["a"]


async def test_trouble_that_is_not_the_jobs_own_never_kills_it(crew: Crew, table: Table) -> None:
    await table.put("a")
    work = Work(*[HostResting(wait=0.001)] * 8, DONE)
    crew.start(work, job_attempts=2)
    await crew.empty()
    assert {job.attempts for job in work.jobs} == {0}
    await crew.until(lambda: crew.outcomes() == {"postponed": 8, "done": 1})


async def test_a_job_with_nothing_to_do_is_gone_too(crew: Crew, table: Table) -> None:
    await table.put("a")
    crew.start(Work(Verdict(outcome=Outcome.POINTLESS, error="gone")))
    await crew.empty()
    await crew.until(lambda: crew.ended == [("a", Outcome.POINTLESS, "gone")])


async def test_a_handler_that_crashes_costs_its_job_an_attempt_and_no_other_anything(
    crew: Crew, table: Table
) -> None:
    await table.put("a", "b")
    with capture_logs() as logs:
        crew.start(Work(KeyError("x"), DONE), mirror_concurrency=1)
        await crew.empty()
    assert [line["request_id"] for line in logs if line["log_level"] == "error"] == ["a"]
    assert ("a", Outcome.POSTPONED, "crashed: KeyError: 'x'") in crew.ended


async def test_a_cancellation_that_the_handler_met_elsewhere_does_not_stop_the_worker(
    crew: Crew, table: Table
) -> None:
    await table.put("a")
    crew.start(Work(asyncio.CancelledError(), DONE))
    await crew.empty()
    await crew.until(lambda: crew.outcomes() == {"postponed": 1, "done": 1})


async def test_a_host_that_rests_does_not_make_the_worker_spin(crew: Crew, table: Table) -> None:
    await table.put(*[f"j{number}" for number in range(300)])
    work = Work(HostResting(wait=0.001))
    began = time.monotonic()
    crew.start(work, jobs_poll="200ms", mirror_concurrency=4, job_backoff="1ms")
    await crew.until(lambda: len(work.jobs) >= 24)
    assert time.monotonic() - began > 4 * 0.2  # six rounds of four, five polls in between


# --- leases -------------------------------------------------------------------------------------


async def test_a_worker_that_dies_is_replaced_after_its_lease(crew: Crew, table: Table) -> None:
    await table.put("a")
    first, second = Work(held=True), Work()
    crew.start(first, job_lease="300ms")
    await crew.until(lambda: first.running == {"a"})
    crew.tasks[0].cancel()  # as a kill does: nothing is reported, nothing released
    await crew.until(lambda: first.cancelled == ["a"])
    crew.start(second, job_lease="300ms")
    await crew.empty()
    assert [(job.request_id, job.attempts) for job in second.jobs] == [("a", 1)]


async def test_a_long_job_keeps_its_lease(crew: Crew, table: Table) -> None:
    await table.put("a")
    first, second = Work(held=True), Work()
    crew.start(first, job_lease="900ms")
    await crew.until(lambda: first.running == {"a"})
    crew.start(second, job_lease="900ms")
    began, lease = time.monotonic(), (await table.of("a")).lease_until
    assert lease is not None

    async def extended() -> bool:
        now = (await table.of("a")).lease_until
        return now is not None and now > lease + timedelta(seconds=1.0)

    await wait_for(extended)
    assert time.monotonic() - began > 0.9  # the lease that it was claimed with
    first.go.set()
    await crew.empty()
    assert second.jobs == []
    await crew.until(lambda: crew.outcomes() == {"done": 1})


async def test_a_job_whose_lease_was_lost_is_broken_off_and_not_reported_on(
    crew: Crew, table: Table
) -> None:
    await table.put("a")
    work = Work(held=True)
    crew.start(work, job_lease="300ms")
    await crew.until(lambda: work.running == {"a"})
    assert await table.bury(work.jobs[0], "somebody else says so")
    await crew.until(lambda: work.cancelled == ["a"])
    await crew.until(lambda: crew.ended == [("a", Outcome.LOST_LEASE, None)])
    job = await table.of("a")
    assert (job.dead_at is not None, job.last_error) == (True, "somebody else says so")


async def test_a_job_that_comes_back_while_it_runs_is_run_once_at_a_time(
    crew: Crew, table: Table
) -> None:
    await table.put("a")
    work = Work(held=True)
    crew.start(work, mirror_concurrency=2)
    await crew.until(lambda: work.running == {"a"})
    await table.release(work.jobs)
    await crew.until(lambda: len(work.jobs) == 2)
    await crew.until(lambda: work.cancelled == ["a"])
    work.go.set()
    await crew.empty()
    await crew.until(lambda: crew.outcomes() == {"lost-lease": 1, "done": 1})


async def test_a_job_that_its_own_success_removes_is_done_not_lost(
    crew: Crew, table: Table
) -> None:
    class Thorough(Work):
        async def __call__(self, job: Job) -> Verdict:
            await table.complete(job)
            return await super().__call__(job)

    await table.put("a")
    crew.start(Thorough())
    await crew.until(lambda: crew.ended == [("a", Outcome.DONE, None)])


async def test_a_job_that_takes_its_workers_down_is_dead_without_being_run_again(
    crew: Crew, table: Table
) -> None:
    await table.put("a")
    for _ in range(3):
        assert await table.claim(MIRROR, "dying", 1, timedelta(microseconds=1))
        await asyncio.sleep(0.001)  # the lease
    work = Work()
    crew.start(work, job_attempts=3)
    await crew.until(lambda: crew.outcomes() == {"dead": 1})
    assert work.jobs == []
    assert "stopped without a word" in ((await table.of("a")).last_error or "")


async def test_workers_that_share_a_postgresql_run_each_job_once_between_them(
    shared_table: Table, tmp_path: Path
) -> None:
    crew = Crew(shared_table, tmp_path)
    names = [f"j{number}" for number in range(100)]
    await shared_table.put(*names)
    work = Work()
    for _ in range(3):
        crew.start(work)
    await crew.empty()
    await crew.until(lambda: crew.outcomes() == {"done": 100})
    assert sorted(work.names()) == sorted(names)
    await crew.stop()


# --- a catalog that is away ---------------------------------------------------------------------


async def test_a_catalog_that_was_away_is_asked_rarely_and_work_goes_on_by_itself(
    crew: Crew, table: Table
) -> None:
    class Unlucky(Clock):
        def jitter(self, ceiling: float) -> float:
            return ceiling

    table.away = True
    began = time.monotonic()
    worker = crew.start(Work(), clock=Unlucky(), jobs_poll="10ms")
    while table.refused < 6:
        worker.wake()  # which is no reason to ask a catalog that is away
        await asyncio.sleep(0.001)
    assert time.monotonic() - began >= 0.01 + 0.02 + 0.04 + 0.08 + 0.1
    await table.put("a")
    table.away = False
    await crew.empty()


async def test_a_report_that_nobody_hears_is_made_again(crew: Crew, table: Table) -> None:
    await table.put("a")
    work = Work(held=True)
    crew.start(work)
    await crew.until(lambda: work.running == {"a"})
    table.away = True
    work.go.set()
    await crew.until(lambda: table.refused > 2)
    assert crew.ended == []
    table.away = False
    await crew.empty()
    assert len(work.jobs) == 1
    await crew.until(lambda: crew.outcomes() == {"done": 1})


async def test_a_report_that_comes_too_late_costs_another_run(crew: Crew, table: Table) -> None:
    await table.put("a")
    work = Work(held=True)
    crew.start(work, job_lease="200ms", jobs_poll="50ms")
    await crew.until(lambda: work.running == {"a"})
    table.away = True
    work.go.set()
    await crew.until(lambda: crew.outcomes() == {"lost-lease": 1})
    table.away = False
    await crew.empty()
    assert [job.attempts for job in work.jobs] == [0, 1]


async def test_jobs_go_on_while_their_leases_cannot_be_extended(crew: Crew, table: Table) -> None:
    await table.put("a")
    work = Work(held=True)
    crew.start(work, job_lease="150ms")
    await crew.until(lambda: work.running == {"a"})
    table.away = True
    began = time.monotonic()
    await crew.until(lambda: time.monotonic() - began > 0.3)
    assert work.running == {"a"}
    table.away = False
    work.go.set()
    await crew.empty()
    assert "done" in crew.outcomes()


# --- stopping -----------------------------------------------------------------------------------


async def test_a_worker_that_stops_lets_its_jobs_end_and_takes_no_more(
    crew: Crew, table: Table
) -> None:
    await table.put("a", "b")
    work = Work(held=True)
    worker = crew.start(work, mirror_concurrency=1)
    await crew.until(lambda: work.running == {"a"})
    closing = asyncio.create_task(worker.close(10.0))
    await asyncio.sleep(0)
    work.go.set()
    await closing
    await crew.tasks[0]
    await crew.until(lambda: crew.outcomes() == {"done": 1})
    assert (await table.of("b")).state(datetime.now(UTC)) is JobState.DUE


async def test_jobs_that_do_not_end_in_time_are_handed_back_at_no_cost(
    crew: Crew, table: Table
) -> None:
    await table.put("a")
    work = Work(held=True)
    worker = crew.start(work)
    await crew.until(lambda: work.running == {"a"})
    await worker.close(0.05)
    await crew.tasks[0]
    assert work.cancelled == ["a"]
    await crew.until(lambda: crew.outcomes() == {"cancelled": 1})
    job = await table.of("a")
    assert (job.state(datetime.now(UTC)), job.attempts) == (JobState.DUE, 0)


async def test_jobs_that_were_claimed_while_the_worker_was_told_to_stop_are_handed_back(
    crew: Crew, table: Table
) -> None:
    claimed, go = asyncio.Event(), asyncio.Event()
    claim = table.claim

    async def slow(*arguments: Any, **named: Any) -> list[Job]:
        jobs = await claim(*arguments, **named)
        claimed.set()
        await go.wait()
        return jobs

    table.claim = slow  # type: ignore[method-assign]
    await table.put("a")
    work = Work()
    worker = crew.start(work)
    await claimed.wait()
    closing = asyncio.create_task(worker.close(10.0))
    await asyncio.sleep(0)
    go.set()
    await closing
    await crew.tasks[0]
    assert work.jobs == []
    assert (await table.of("a")).state(datetime.now(UTC)) is JobState.DUE
