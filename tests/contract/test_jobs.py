"""Jobs are claimed once, fenced, retried and listed alike in SQLite and in PostgreSQL."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import claims, job_rows
from proxy.catalog.engine import Catalog, open_catalog
from proxy.catalog.job_rows import NewJob
from proxy.catalog.jobs import Jobs
from proxy.catalog.tables import jobs as jobs_table
from proxy.errors import BadRequest
from proxy.records import Job, JobKind, JobState
from tests.fixtures.clock import NOON, StandingClock

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
MIRROR, RESOLVE = JobKind.MIRROR, JobKind.RESOLVE


@pytest.fixture
def jobs(catalog: Catalog, clock: StandingClock) -> Jobs:
    return Jobs(catalog, clock=clock)


def new(
    request_id: str = "a",
    kind: JobKind = MIRROR,
    *,
    asked: bool = False,
    expires_at: datetime | None = None,
    age: timedelta = DAY,
) -> NewJob:
    return NewJob(
        request_id=request_id,
        kind=kind,
        asked=asked,
        expires_at=expires_at,
        created_at=NOON - age,
    )


async def claim(jobs: Jobs, limit: int = 1, owner: str = "w") -> list[Job]:
    return await jobs.claim(MIRROR, owner, limit, MINUTE, expiry_margin=DAY)


async def claim_one(jobs: Jobs) -> Job:
    [job] = await claim(jobs)
    return job


async def there(jobs: Jobs, request_id: str = "a", kind: JobKind = MIRROR) -> Job:
    job = await jobs.get(request_id, kind)
    assert job is not None
    return job


def ids(found: Sequence[Job]) -> list[str]:
    return [job.request_id for job in found]


# --- filing -------------------------------------------------------------------------------------


async def test_what_is_filed_is_there_and_due(jobs: Jobs) -> None:
    assert await jobs.file([new(asked=True, expires_at=NOON + DAY)]) == 1
    assert await there(jobs) == Job(
        request_id="a",
        kind=MIRROR,
        asked=True,
        expires_at=NOON + DAY,
        created_at=NOON - DAY,
        due_at=NOON,
    )
    assert await jobs.get("a", RESOLVE) is None


async def test_filing_twice_is_filing_once(jobs: Jobs, clock: StandingClock) -> None:
    await jobs.file([new()])
    before = await there(jobs)
    clock.go(hours=1)
    assert await jobs.file([new(), new(), new(kind=RESOLVE)]) == 1
    assert await there(jobs) == before
    assert await jobs.file([]) == 0


async def test_a_job_learns_that_it_is_asked_for_and_never_forgets(
    jobs: Jobs, clock: StandingClock
) -> None:
    await jobs.file([new()])
    await jobs.postpone(await claim_one(jobs), wait=DAY, error="no")
    clock.go(hours=1)
    assert await jobs.file([new(asked=True)]) == 1
    hurried = await there(jobs)
    assert (hurried.asked, hurried.due_at, hurried.attempts) == (True, clock.time, 1)
    assert await jobs.file([new(asked=True), new()]) == 0
    assert await there(jobs) == hurried


async def test_asking_twice_does_not_undo_a_pause(jobs: Jobs, clock: StandingClock) -> None:
    await jobs.file([new(asked=True)])
    await jobs.postpone(await claim_one(jobs), wait=DAY, error="no")
    clock.go(hours=1)
    await jobs.file([new(asked=True)])
    assert (await there(jobs)).due_at == NOON + DAY


async def test_asking_for_a_running_job_leaves_its_lease(jobs: Jobs, clock: StandingClock) -> None:
    await jobs.file([new()])
    job = await claim_one(jobs)
    clock.go(seconds=30)
    await jobs.file([new(asked=True)])
    running = await there(jobs)
    assert (running.asked, running.due_at) == (True, NOON + MINUTE)
    assert await claim(jobs) == []
    assert await jobs.complete(job)


async def test_a_dead_job_stays_dead_until_it_is_revived(jobs: Jobs, clock: StandingClock) -> None:
    await jobs.file([new()])
    await jobs.bury(await claim_one(jobs), "hopeless")
    clock.go(hours=1)
    assert await jobs.file([new(asked=True)]) == 0
    assert (await there(jobs)).state(clock.time) is JobState.DEAD
    assert await jobs.file([new()], revive=True) == 1
    revived = await there(jobs)
    assert (revived.dead_at, revived.attempts, revived.due_at) == (None, 0, clock.time)
    assert await jobs.file([new()], revive=True) == 0


async def test_thousands_of_jobs_fit_in_one_call(jobs: Jobs) -> None:
    many = [new(f"r{n}") for n in range(12_000)]
    assert await jobs.file(many) == 12_000
    assert await jobs.file([*many, new("one-more")]) == 1
    assert len(await jobs.alive(item.request_id for item in many)) == 12_000


# --- claiming -----------------------------------------------------------------------------------


async def test_nothing_is_claimed_from_nothing(jobs: Jobs) -> None:
    assert await claim(jobs) == []
    await jobs.file([new()])
    assert await claim(jobs, limit=0) == []
    assert await jobs.claim(RESOLVE, "w", 9, MINUTE, expiry_margin=DAY) == []


async def test_asked_ones_come_first_then_those_about_to_expire_then_the_newest(
    jobs: Jobs, clock: StandingClock
) -> None:
    await jobs.file([new("asked-first", asked=True)])
    clock.go(seconds=1)
    await jobs.file([new("asked-later", asked=True, expires_at=NOON)])
    clock.go(seconds=1)
    await jobs.file(
        [
            new("old", age=9 * DAY),
            new("soon", expires_at=NOON + DAY / 2, age=8 * DAY),
            new("sooner", expires_at=NOON + DAY / 4, age=DAY),
            new("overdue", expires_at=NOON - DAY, age=7 * DAY),
            new("far", expires_at=NOON + 3 * DAY, age=2 * DAY),
            new("newest", age=DAY / 2),
        ]
    )
    order = ["asked-first", "asked-later", "overdue", "sooner", "soon", "newest", "far", "old"]
    assert ids(await claim(jobs, limit=3)) == order[:3]
    assert ids(await claim(jobs, limit=3)) == order[3:6]
    assert ids(await claim(jobs, limit=3)) == order[6:]
    assert await claim(jobs, limit=3) == []


async def test_due_jobs_behind_thousands_of_waiting_ones_are_found(
    jobs: Jobs, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "REACH", 3)
    expiring = NOON + DAY / 2
    await jobs.file([new(f"new{n}", expires_at=expiring, age=DAY * n) for n in range(5)])
    for job in await claim(jobs, limit=5):
        await jobs.postpone(job, wait=DAY, error="not now")
    clock.go(seconds=1)
    await jobs.file([new("older", age=30 * DAY)])
    clock.go(seconds=1)
    await jobs.file([new("old", expires_at=expiring + MINUTE, age=20 * DAY)])
    assert ids(await claim(jobs, limit=5)) == ["older", "old"]


async def test_claimers_at_once_never_get_the_same_job(
    jobs: Jobs, catalog: Catalog, clock: StandingClock, database_url: str
) -> None:
    await jobs.file([new(f"r{n}", asked=n % 3 == 0) for n in range(400)])
    second = await open_catalog(database_url)
    claimed: list[Job] = []

    async def work(mine: Jobs) -> None:
        while found := await claim(mine, limit=7):
            claimed.extend(found)

    try:
        both = [jobs, Jobs(second, clock=clock)]
        await asyncio.gather(*(work(mine) for mine in both * 4))
    finally:
        await second.close()
    while rest := await claim(jobs, limit=7):  # what two passed over, each for the other
        claimed.extend(rest)
    assert len(claimed) == 400
    assert len(set(ids(claimed))) == 400
    assert len({job.lease_owner for job in claimed}) >= 400 / 7


async def test_a_claim_is_what_the_table_says(jobs: Jobs) -> None:
    await jobs.file([new()])
    job = await claim_one(jobs)
    assert job == await there(jobs)
    assert job.state(NOON) is JobState.RUNNING
    assert job.lease_owner is not None
    assert job.lease_owner.startswith("w/")


# --- leases and fencing -------------------------------------------------------------------------


async def test_a_lease_that_ran_out_is_a_failure_and_fences_the_first_claim(
    jobs: Jobs, clock: StandingClock
) -> None:
    await jobs.file([new()])
    first = await claim_one(jobs)
    clock.go(seconds=60)
    second = await claim_one(jobs)
    assert (second.attempts, second.last_error) == (1, claims.WORKER_DIED)
    assert second == await there(jobs)
    assert not await jobs.complete(first)
    assert not await jobs.postpone(first, wait=MINUTE, error="late")
    assert not await jobs.bury(first, "late")
    assert await jobs.release([first]) == set()
    assert await jobs.extend([first, second], MINUTE) == {("a", MIRROR)}
    assert await there(jobs) == second
    assert await jobs.complete(second)
    assert not await jobs.complete(second)


async def test_a_clip_that_kills_its_workers_counts_each_of_them(
    jobs: Jobs, clock: StandingClock
) -> None:
    await jobs.file([new()])
    for deaths in range(4):
        assert (await claim_one(jobs)).attempts == deaths
        clock.go(minutes=2)


async def test_a_heartbeat_keeps_a_job(jobs: Jobs, clock: StandingClock) -> None:
    await jobs.file([new("a"), new("b"), new("c", RESOLVE)])
    held = await claim(jobs, limit=2)
    for _ in range(3):
        clock.go(seconds=50)
        assert await jobs.extend(held, MINUTE) == {("a", MIRROR), ("b", MIRROR)}
        assert await claim(jobs, limit=2) == []
    assert await jobs.extend([], MINUTE) == set()
    assert await jobs.complete(held[0])
    assert await jobs.extend(held, MINUTE) == {(held[1].request_id, MIRROR)}


async def test_a_heartbeat_that_comes_late_but_before_anybody_else_keeps_the_job(
    jobs: Jobs, clock: StandingClock
) -> None:
    await jobs.file([new()])
    job = await claim_one(jobs)
    clock.go(minutes=5)
    assert await jobs.extend([job], MINUTE) == {("a", MIRROR)}
    assert await claim(jobs) == []


async def test_a_released_job_is_due_and_has_not_failed(jobs: Jobs) -> None:
    await jobs.file([new()])
    assert await jobs.release([await claim_one(jobs)]) == {("a", MIRROR)}
    again = await claim_one(jobs)
    assert (again.attempts, again.last_error) == (0, None)


async def test_a_postponed_job_comes_back_when_its_time_has_come(
    jobs: Jobs, clock: StandingClock
) -> None:
    await jobs.file([new()])
    assert await jobs.postpone(await claim_one(jobs), wait=MINUTE, error="a\0" + "b" * 3000)
    waiting = await there(jobs)
    assert waiting.state(clock.time) is JobState.WAITING
    assert waiting.last_error == "a" + "b" * 1999
    clock.go(seconds=59)
    assert await claim(jobs) == []
    clock.go(seconds=1)
    again = await claim_one(jobs)
    assert again.attempts == 1
    await jobs.postpone(again, wait=MINUTE, error="not its fault", counted=False)
    assert (await there(jobs)).attempts == 1


async def test_a_restart_fences_off_whoever_runs_the_job(
    jobs: Jobs, catalog: Catalog, clock: StandingClock
) -> None:
    await jobs.file([new("a"), new("b"), new("a", RESOLVE)])
    held = await claim(jobs, limit=2)
    clock.go(seconds=1)

    async def restart(connection: AsyncConnection) -> set[job_rows.Key]:
        return await job_rows.restart(connection, ["a", "nobody"], MIRROR, clock.now())

    assert await catalog.write(restart) == {("a", MIRROR)}
    assert await jobs.extend(held, MINUTE) == {("b", MIRROR)}
    again = await claim_one(jobs)
    assert (again.request_id, again.attempts) == ("a", 0)
    assert (await there(jobs, "a", RESOLVE)).due_at == NOON


async def test_running_jobs_can_be_removed(jobs: Jobs, catalog: Catalog) -> None:
    await jobs.file([new("a"), new("a", RESOLVE), new("b")])
    [job] = [job for job in await claim(jobs, limit=2) if job.request_id == "a"]
    removed = await catalog.write(lambda connection: job_rows.remove(connection, ["a"], MIRROR))
    assert removed == {("a", MIRROR)}
    assert not await jobs.complete(job)
    assert await jobs.alive(["a", "b", "c"]) == {"a", "b"}
    await catalog.write(lambda connection: job_rows.remove(connection, ["a", "b"]))
    assert await jobs.alive(["a", "b", "c"]) == set()


# --- dead ones ----------------------------------------------------------------------------------


async def test_a_buried_job_is_listed_and_never_claimed(jobs: Jobs, clock: StandingClock) -> None:
    await jobs.file([new("a", asked=True, expires_at=NOON), new("b")])
    assert await jobs.bury((await claim(jobs))[0], "hopeless\0")
    clock.go(days=4000)
    assert ids(await claim(jobs, limit=5)) == ["b"]
    [dead] = (await jobs.list(state=JobState.DEAD)).items
    assert (dead.request_id, dead.last_error, dead.attempts) == ("a", "hopeless", 1)
    assert (dead.dead_at, dead.due_at, dead.lease_owner) == (NOON, NOON, None)
    assert await jobs.alive(["a", "b"]) == {"b"}


async def test_a_retry_begins_anew_what_is_dead_or_waits(jobs: Jobs, clock: StandingClock) -> None:
    await jobs.file([new("dead"), new("waiting"), new("running"), new("due")])
    claimed = {job.request_id: job for job in await claim(jobs, limit=4)}
    await jobs.bury(claimed["dead"], "hopeless")
    await jobs.postpone(claimed["waiting"], wait=DAY, error="no")
    await jobs.release([claimed["due"]])
    clock.go(seconds=1)
    assert await jobs.retry(request_ids=["dead", "waiting", "running", "nobody"]) == 2
    again = {job.request_id: job for job in await claim(jobs, limit=4)}
    assert again.keys() == {"dead", "waiting", "due"}
    assert again["dead"].attempts == again["waiting"].attempts == 0
    assert not await jobs.complete(claimed["dead"])
    assert await jobs.complete(claimed["running"])


async def test_a_retry_fences_off_a_worker_whose_lease_ran_out(
    jobs: Jobs, clock: StandingClock
) -> None:
    await jobs.file([new()])
    job = await claim_one(jobs)
    clock.go(minutes=2)
    assert await jobs.retry(request_ids=["a"]) == 1
    assert not await jobs.complete(job)
    assert (await claim_one(jobs)).attempts == 0


async def test_without_ids_all_dead_ones_and_no_others_are_retried(
    jobs: Jobs, clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_rows, "JOBS_AT_ONCE", 2)
    await jobs.file([new(f"r{n}") for n in range(5)] + [new("waiting")] + [new("q", RESOLVE)])
    for job in await claim(jobs, limit=6):
        if job.request_id == "waiting":
            await jobs.postpone(job, wait=DAY, error="no")
        else:
            await jobs.bury(job, "hopeless")
    [asking] = await jobs.claim(RESOLVE, "w", 1, MINUTE, expiry_margin=DAY)
    await jobs.bury(asking, "hopeless")
    clock.go(seconds=1)
    assert await jobs.retry(kind=MIRROR) == 5
    assert await jobs.retry() == 1
    assert await jobs.retry() == 0
    assert (await there(jobs, "waiting")).state(clock.time) is JobState.WAITING


# --- listing and counting -----------------------------------------------------------------------


async def fill(jobs: Jobs, clock: StandingClock) -> None:
    """File two of each state of mirror jobs, and a resolve job that is due for an hour."""
    await jobs.file([new(f"{state}{n}") for state in JobState for n in range(2)])
    await jobs.file([new("due0", RESOLVE)])
    for job in await claim(jobs, limit=8):
        if job.request_id.startswith("dead"):
            await jobs.bury(job, "hopeless")
        elif job.request_id.startswith("waiting"):
            await jobs.postpone(job, wait=DAY, error="no")
        elif job.request_id.startswith("due"):
            await jobs.release([job])
        else:
            await jobs.extend([job], DAY / 2)
    clock.go(hours=1)


@pytest.mark.parametrize("state", list(JobState))
async def test_a_listing_of_one_state_shows_those_jobs(
    jobs: Jobs, clock: StandingClock, state: JobState
) -> None:
    await fill(jobs, clock)
    page = await jobs.list(state=state, kind=MIRROR)
    assert (ids(page.items), page.next) == ([f"{state}0", f"{state}1"], None)
    assert {job.state(clock.time) for job in page.items} == {state}
    both = await jobs.list(state=state)
    assert len(both.items) == 2 + (state is JobState.DUE)


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_pages_show_every_job_once(jobs: Jobs, clock: StandingClock, limit: int) -> None:
    await fill(jobs, clock)
    seen: list[tuple[str, JobKind]] = []
    after = None
    while True:
        page = await jobs.list(after=after, limit=limit)
        assert len(page.items) <= limit
        seen += [(job.request_id, job.kind) for job in page.items]
        after = page.next
        if after is None:
            break
    names = [f"{state}{n}" for state in ("due", "running", "waiting", "dead") for n in range(2)]
    expected = [(name, MIRROR) for name in names]
    assert seen == [*expected[:1], ("due0", RESOLVE), *expected[1:]]


async def test_an_invented_page_is_a_bad_request(jobs: Jobs) -> None:
    for invented in ("x", "mirror", "mirror.", "mirror.1.é", "other.1.a", "1.a"):
        with pytest.raises(BadRequest):
            await jobs.list(after=invented)


async def test_counts_name_every_kind_and_state(jobs: Jobs, clock: StandingClock) -> None:
    empty = await jobs.count()
    assert empty.by_state == {(kind, state): 0 for kind in JobKind for state in JobState}
    assert empty.oldest_due == {MIRROR: 0.0, RESOLVE: 0.0}
    await fill(jobs, clock)
    counts = await jobs.count()
    assert counts.by_state == {(MIRROR, state): 2 for state in JobState} | {
        (RESOLVE, state): int(state is JobState.DUE) for state in JobState
    }
    assert counts.oldest_due == {MIRROR: 3600.0, RESOLVE: 3600.0}


# --- a million of them --------------------------------------------------------------------------


async def test_every_order_of_claims_walks_along_an_index_of_its_own(tmp_path: Path) -> None:
    """In SQLite, which chooses by the words of a query; PostgreSQL counts rows."""
    catalog = await open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite")

    async def plans(connection: AsyncConnection) -> list[str]:
        found = []
        for query in claims.orders(MIRROR):
            given = query.params(now=NOON, expiring_by=NOON + DAY)
            picking = given.where(jobs_table.c.request_id.not_in(["a", "b"])).limit(4)
            words = picking.compile(connection.sync_engine, compile_kwargs={"literal_binds": True})
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}")
            found.append(" ".join(row.detail for row in plan))
        return found

    asked, expiring, newest, longest = await catalog.read(plans)
    await catalog.close()
    assert "jobs_asked (kind=? AND due_at<?)" in asked
    assert "jobs_by_expiry (kind=? AND expires_at>? AND expires_at<?)" in expiring
    assert "jobs_newest (kind=? AND created_at>?)" in newest
    assert "jobs_by_due (kind=? AND due_at<?)" in longest
    assert "TEMP B-TREE" not in asked + expiring + newest + longest
