"""A generation and its jobs change together or not at all, whoever reports what, in what order."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import job_rows
from proxy.catalog.engine import Catalog, open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.job_rows import NewJob
from proxy.catalog.jobs import Jobs
from proxy.catalog.notices import Notices, Taken
from proxy.catalog.prompts import prompt_hash
from proxy.errors import CatalogUnavailable
from proxy.records import (
    ClipFacts,
    Generation,
    Job,
    JobKind,
    MediaFacts,
    Notice,
    Registration,
    Status,
)
from tests.fixtures.clock import NOON, StandingClock
from tests.fixtures.origin import wait_for

URL = "https://v3b.fal.media/files/b/one/clip.mp4"
OTHER = "https://v3b.fal.media/files/b/two/clip.mp4"
DAY = timedelta(days=1)
MIRROR, RESOLVE = JobKind.MIRROR, JobKind.RESOLVE


def address(request_id: str) -> str:
    return f"https://cdn.example/videos/{request_id}.mp4"


@pytest.fixture
def parts(clock: StandingClock) -> dict[str, Any]:
    return {"clip_url": address, "expires_after": 7 * DAY, "clock": clock}


@pytest.fixture
def generations(catalog: Catalog, parts: dict[str, Any]) -> Generations:
    return Generations(catalog, **parts)


@pytest.fixture
def notices(catalog: Catalog, parts: dict[str, Any]) -> Notices:
    return Notices(catalog, **parts)


@pytest.fixture
def jobs(catalog: Catalog, clock: StandingClock) -> Jobs:
    return Jobs(catalog, clock=clock)


def facts(etag: str = "e1") -> ClipFacts:
    return ClipFacts(
        request_id="a", length=1000, etag=etag, last_modified=NOON.replace(microsecond=0)
    )


def ok(request_id: str = "a", url: str = URL, **said: Any) -> Notice:
    clip = Registration(request_id=request_id, fal_url=url, **said)
    return Notice(request_id=request_id, clips=(clip,))


def error(request_id: str = "a", reason: str = "Invalid status code: 422") -> Notice:
    return Notice(request_id=request_id, failure=reason)


def ask(request_id: str = "a") -> Notice:
    return Notice(request_id=request_id, resolve=True)


async def put(generations: Generations, **said: Any) -> None:
    await generations.register([Registration(**{"request_id": "a"} | said)])


async def row(generations: Generations, request_id: str = "a") -> Generation:
    found = await generations.get(request_id)
    assert found is not None
    return found


async def kinds(jobs: Jobs, request_id: str = "a") -> set[JobKind]:
    return {kind for kind in JobKind if await jobs.get(request_id, kind) is not None}


async def there(jobs: Jobs, kind: JobKind = MIRROR) -> Job:
    job = await jobs.get("a", kind)
    assert job is not None
    return job


async def file(jobs: Jobs, kind: JobKind) -> None:
    await jobs.file([NewJob(request_id="a", kind=kind, created_at=NOON)])


async def claim(jobs: Jobs, kind: JobKind) -> Job:
    [job] = await jobs.claim(kind, "w", 1, DAY, expiry_margin=DAY)
    return job


# --- what happens to a clip, and to its jobs ----------------------------------------------------


async def test_a_first_view_makes_sure_of_an_asked_mirror_job(
    generations: Generations, jobs: Jobs
) -> None:
    await put(generations, fal_url=URL, created_at=NOON - DAY, completed_at=NOON - DAY / 2)
    assert await kinds(jobs) == set()
    await generations.note_source("a", URL, facts(), None)
    assert await there(jobs) == Job(
        request_id="a",
        kind=MIRROR,
        asked=True,
        created_at=NOON - DAY,
        due_at=NOON,
        expires_at=NOON - DAY / 2 + 7 * DAY,
    )


async def test_a_fill_that_nobody_watches_asks_for_nothing(
    generations: Generations, jobs: Jobs
) -> None:
    await put(generations, fal_url=URL)
    await generations.note_source("a", URL, facts(), None, asked=False)
    assert not (await there(jobs)).asked


async def test_a_view_of_what_is_stored_unknown_or_elsewhere_files_nothing(
    generations: Generations, jobs: Jobs
) -> None:
    await generations.note_source("a", URL, facts(), None)
    await put(generations, fal_url=URL)
    await generations.note_source("a", OTHER, facts(), None)
    await generations.mark_stored("a", URL, facts(), None, NOON)
    await generations.note_source("a", URL, facts(), None)
    assert await kinds(jobs) == set()


async def test_a_stored_clip_has_no_jobs_left(generations: Generations, jobs: Jobs) -> None:
    await put(generations, fal_url=URL)
    await file(jobs, MIRROR)
    await file(jobs, RESOLVE)
    running = await claim(jobs, MIRROR)
    assert not await generations.mark_stored("a", OTHER, facts("e2"), None, NOON)
    assert await kinds(jobs) == {MIRROR, RESOLVE}
    assert await generations.mark_stored("a", URL, facts(), None, NOON)
    assert await kinds(jobs) == set()
    assert not await jobs.complete(running)


async def test_what_the_clip_says_of_itself_fills_only_gaps(generations: Generations) -> None:
    await put(generations, fal_url=URL, duration=5.0)
    media = MediaFacts(duration=5.2, width=1920, height=1080)
    await generations.mark_stored("a", URL, facts(), None, NOON, media=media)
    after = await row(generations)
    assert (after.duration, after.width, after.height) == (5.0, 1920, 1080)


async def test_a_clip_missing_from_the_bucket_gets_a_job(
    generations: Generations, jobs: Jobs
) -> None:
    await put(generations, fal_url=URL)
    await generations.note_missing("a")
    assert await kinds(jobs) == set()
    await generations.mark_stored("a", URL, facts(), None, NOON)
    await generations.note_missing("a")
    assert not (await there(jobs)).asked


async def test_an_adopted_clip_that_vanished_has_no_job(
    generations: Generations, jobs: Jobs
) -> None:
    await generations.mark_stored("a", None, facts(), None, NOON)
    assert await generations.note_missing("a") is Status.LOST
    assert await kinds(jobs) == set()


async def test_a_lost_clip_is_not_mirrored_any_more(generations: Generations, jobs: Jobs) -> None:
    await put(generations, fal_url=URL)
    await file(jobs, MIRROR)
    for hour in range(3):
        assert await kinds(jobs) == {MIRROR}
        await generations.note_refusal("a", URL, NOON + hour * timedelta(hours=1))
    assert await kinds(jobs) == set()


async def test_a_failed_generation_is_not_asked_for(generations: Generations, jobs: Jobs) -> None:
    await put(generations)
    await file(jobs, RESOLVE)
    await generations.mark_failed("a", "no")
    assert await kinds(jobs) == set()


# --- registering --------------------------------------------------------------------------------


async def test_registering_files_nothing_by_itself(generations: Generations, jobs: Jobs) -> None:
    await put(generations, fal_url=URL)
    await put(generations, model="m")
    assert await kinds(jobs) == set()


async def test_a_repointed_clip_is_mirrored_anew_and_its_worker_fenced_off(
    generations: Generations, jobs: Jobs, clock: StandingClock
) -> None:
    await put(generations, fal_url=URL)
    await file(jobs, MIRROR)
    await jobs.postpone(await claim(jobs, MIRROR), wait=timedelta(0), error="no")
    running = await claim(jobs, MIRROR)
    clock.go(seconds=1)
    await put(generations, fal_url=OTHER)
    after = await there(jobs)
    assert (after.attempts, after.due_at, after.lease_owner) == (0, clock.time, None)
    assert not await jobs.complete(running)


async def test_a_dead_job_of_a_repointed_clip_lives_again(
    generations: Generations, jobs: Jobs
) -> None:
    await put(generations, fal_url=URL)
    await file(jobs, MIRROR)
    await jobs.bury(await claim(jobs, MIRROR), "hopeless")
    await put(generations, fal_url=URL + "?signed")
    assert (await there(jobs)).dead_at is not None
    await put(generations, fal_url=OTHER)
    assert (await there(jobs)).dead_at is None


async def test_a_stored_clip_that_is_repointed_gets_a_job(
    generations: Generations, jobs: Jobs
) -> None:
    await put(generations, fal_url=URL)
    await generations.mark_stored("a", URL, facts(), None, NOON)
    there_and_back = [Registration(request_id="a", fal_url=url) for url in (OTHER, URL)]
    await generations.register(there_and_back)
    assert await kinds(jobs) == {MIRROR}


async def test_a_pending_row_that_learns_its_model_is_asked_for_now(
    generations: Generations, jobs: Jobs, clock: StandingClock
) -> None:
    await put(generations)
    await file(jobs, RESOLVE)
    await jobs.bury(await claim(jobs, RESOLVE), "no model")
    clock.go(seconds=1)
    await put(generations, model="m")
    asking = await there(jobs, RESOLVE)
    assert (asking.dead_at, asking.attempts, asking.due_at) == (None, 0, clock.time)
    await jobs.bury(await claim(jobs, RESOLVE), "fal does not know it")
    await put(generations, model="other")
    assert (await there(jobs, RESOLVE)).dead_at is not None


@pytest.mark.parametrize("asked", [True, False])
async def test_a_row_that_learns_its_url_is_mirrored_instead_of_asked_for(
    generations: Generations, jobs: Jobs, *, asked: bool
) -> None:
    await put(generations)
    if asked:
        await file(jobs, RESOLVE)
    await put(generations, fal_url=URL)
    assert await kinds(jobs) == ({MIRROR} if asked else set())


async def test_a_mirror_job_that_died_for_want_of_a_url_lives_again_with_one(
    generations: Generations, jobs: Jobs
) -> None:
    await put(generations)
    await file(jobs, MIRROR)
    await jobs.bury(await claim(jobs, MIRROR), "no address")
    await put(generations, fal_url=URL)
    assert (await there(jobs)).dead_at is None


async def test_an_adopted_clip_that_learns_its_url_needs_no_job(
    generations: Generations, jobs: Jobs
) -> None:
    await generations.mark_stored("a", None, facts(), None, NOON)
    await file(jobs, RESOLVE)
    await put(generations, fal_url=URL)
    assert await kinds(jobs) == set()


# --- notices ------------------------------------------------------------------------------------


async def test_a_finished_clip_gets_its_row_and_its_job(
    notices: Notices, generations: Generations, jobs: Jobs
) -> None:
    said = ok(model="m", prompt="a  cat", content_length=5, created_at=NOON - DAY)
    assert await notices.take(said) is Taken.ACCEPTED
    after = await row(generations)
    assert (after.status, after.fal_url, after.completed_at) == (Status.AVAILABLE, URL, NOON)
    assert (after.prompt_hash, after.prompt) == (prompt_hash("a cat"), None)
    mirror = await there(jobs)
    assert (mirror.asked, mirror.created_at) == (False, NOON - DAY)
    assert mirror.expires_at == NOON + 7 * DAY


async def test_prompts_are_kept_only_on_request(catalog: Catalog, parts: dict[str, Any]) -> None:
    keeping = Notices(catalog, **parts, keep_prompts=True)
    await keeping.take(ok(prompt="a cat"))
    assert (await row(Generations(catalog, **parts))).prompt == "a cat"


async def test_a_duplicate_changes_nothing(
    notices: Notices, generations: Generations, jobs: Jobs, clock: StandingClock
) -> None:
    await notices.take(ok())
    before, job = await row(generations), await there(jobs)
    clock.go(minutes=1)
    assert await notices.take(ok()) is Taken.DUPLICATE
    assert (await row(generations), await there(jobs)) == (before, job)
    await generations.mark_stored("a", URL, facts(), None, NOON)
    assert await notices.take(ok()) is Taken.DUPLICATE
    assert await kinds(jobs) == set()


async def test_a_duplicate_revives_no_dead_job(notices: Notices, jobs: Jobs) -> None:
    await notices.take(ok())
    await jobs.bury(await claim(jobs, MIRROR), "hopeless")
    assert await notices.take(ok()) is Taken.DUPLICATE
    assert (await there(jobs)).dead_at == NOON


async def test_what_an_application_said_before_is_completed(
    notices: Notices, generations: Generations, jobs: Jobs
) -> None:
    await put(generations, model="m", created_at=NOON - DAY)
    await file(jobs, RESOLVE)
    assert await notices.take(ok()) is Taken.ACCEPTED
    assert await kinds(jobs) == {MIRROR}
    assert (await row(generations)).model == "m"


async def test_every_video_of_a_generation_is_a_clip_of_its_own(
    notices: Notices, generations: Generations, jobs: Jobs
) -> None:
    clips = [Registration(request_id=name, fal_url=f"{URL}/{name}") for name in ("a", "a_2")]
    both = Notice(request_id="a", clips=tuple(clips))
    assert await notices.take(both) is Taken.ACCEPTED
    assert (await row(generations, "a_2")).status is Status.AVAILABLE
    assert await kinds(jobs, "a") == await kinds(jobs, "a_2") == {MIRROR}


async def test_a_failure_is_kept_and_a_clip_undoes_it(
    notices: Notices, generations: Generations, jobs: Jobs
) -> None:
    assert await notices.take(error()) is Taken.FAILED
    assert (await row(generations)).error == "Invalid status code: 422"
    assert await notices.take(error()) is Taken.DUPLICATE
    assert await notices.take(ok()) is Taken.ACCEPTED
    after = await row(generations)
    assert (after.status, after.error) == (Status.AVAILABLE, None)
    assert await kinds(jobs) == {MIRROR}


async def test_an_error_after_the_clip_undoes_nothing(
    notices: Notices, generations: Generations, jobs: Jobs
) -> None:
    await notices.take(ok())
    before = await row(generations)
    assert await notices.take(error()) is Taken.LATE
    assert await row(generations) == before
    assert await kinds(jobs) == {MIRROR}
    await generations.mark_stored("a", URL, facts(), None, NOON)
    assert await notices.take(error()) is Taken.LATE
    assert (await row(generations)).status is Status.STORED


async def test_a_result_that_must_be_asked_for_is_asked_for(
    notices: Notices, generations: Generations, jobs: Jobs
) -> None:
    assert await notices.take(ask()) is Taken.RESOLVING
    assert (await row(generations)).status is Status.PENDING
    assert await kinds(jobs) == {RESOLVE}
    assert await notices.take(ask()) is Taken.DUPLICATE
    assert await notices.take(error()) is Taken.FAILED
    assert await kinds(jobs) == set()


async def test_a_registered_generation_is_asked_for_too(
    notices: Notices, generations: Generations, jobs: Jobs
) -> None:
    await put(generations, model="m")
    assert await notices.take(ask()) is Taken.RESOLVING
    assert await kinds(jobs) == {RESOLVE}


@pytest.mark.parametrize("first", [ok(), error()])
async def test_nothing_is_asked_for_that_is_known(
    notices: Notices, jobs: Jobs, first: Notice
) -> None:
    await notices.take(first)
    assert await notices.take(ask()) is Taken.DUPLICATE
    assert RESOLVE not in await kinds(jobs)


ORDERS = sorted(set(itertools.permutations(["ok", "ok", "error", "ask"])), key="".join)


@pytest.mark.parametrize("together", [True, False])
async def test_in_every_order_the_same_notices_leave_the_same(
    notices: Notices, generations: Generations, jobs: Jobs, *, together: bool
) -> None:
    async def take(name: str, order: Sequence[str]) -> None:
        said = {"ok": ok(name), "error": error(name), "ask": ask(name)}
        putting = [notices.take(said[kind]) for kind in order]
        if together:
            await asyncio.gather(*putting)
        else:
            for each in putting:
                await each

    names = {f"r{n}": order for n, order in enumerate(ORDERS)}
    await asyncio.gather(*(take(name, order) for name, order in names.items()))
    rows = [await row(generations, name) for name in names]
    assert {(each.status, each.error, each.completed_at) for each in rows} == {
        (Status.AVAILABLE, None, NOON)
    }
    assert [await kinds(jobs, name) for name in names] == [{MIRROR}] * len(names)


# --- all or nothing -----------------------------------------------------------------------------


async def test_a_row_without_its_job_is_never_written(
    notices: Notices, generations: Generations, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> set[job_rows.Key]:
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(job_rows, "file", away)
        with pytest.raises(CatalogUnavailable):
            await notices.take(ok())
    assert await generations.get("a") is None
    assert await notices.take(ok()) is Taken.ACCEPTED
    assert await kinds(jobs) == {MIRROR}


async def test_a_bad_notice_costs_its_neighbours_nothing(
    notices: Notices, generations: Generations
) -> None:
    bad = ok("bad", model="a\0")  # SQLite takes it, PostgreSQL does not
    taken = await asyncio.gather(
        *(notices.take(notice) for notice in (ok("a"), ok("b"), bad, ok("c"))),
        return_exceptions=True,
    )
    assert [taken[0], taken[1], taken[3]] == [Taken.ACCEPTED] * 3
    assert (await row(generations, "c")).status is Status.AVAILABLE


async def test_what_waits_is_written_before_closing(
    notices: Notices, generations: Generations
) -> None:
    taking = [asyncio.create_task(notices.take(ok(f"r{n}"))) for n in range(200)]
    await asyncio.sleep(0)
    await notices.close()
    assert await asyncio.gather(*taking) == [Taken.ACCEPTED] * 200
    assert (await generations.count_by_status())[Status.AVAILABLE] == 200


async def test_processes_at_once_leave_every_clip_stored_or_with_a_job(
    catalog: Catalog, parts: dict[str, Any], database_url: str
) -> None:
    """And none waits for another: on PostgreSQL a deadlock would be an error here."""
    second = await open_catalog(database_url)
    names = [f"r{n}" for n in range(60)]
    clock = parts["clock"]

    async def notify(mine: Catalog, order: Sequence[str]) -> None:
        notices = Notices(mine, **parts)
        await asyncio.gather(*(notices.take(ok(name)) for name in order))

    async def register(mine: Catalog, order: Sequence[str]) -> None:
        items = [Registration(request_id=name, fal_url=OTHER) for name in order]
        await Generations(mine, **parts).register(items)

    async def work(mine: Catalog) -> None:
        jobs, generations = Jobs(mine, clock=clock), Generations(mine, **parts)
        for _ in range(8):
            held = await jobs.claim(MIRROR, "w", 9, DAY)
            await jobs.extend(held, DAY)
            for job in held[:3]:
                url = (await row(generations, job.request_id)).fal_url
                await generations.mark_stored(job.request_id, url, facts(), None, NOON)
                await jobs.complete(job)
            await jobs.release(held[3:])

    try:
        await asyncio.gather(
            *(notify(mine, names[::way]) for mine in (catalog, second) for way in (1, -1)),
            *(register(mine, names[::way]) for mine in (catalog, second) for way in (1, -1)),
            *(work(mine) for mine in (catalog, second)),
        )
    finally:
        await second.close()
    waiting = await Jobs(catalog, clock=clock).alive(names)
    generations = Generations(catalog, **parts)
    stored = {name for name in names if (await row(generations, name)).status is Status.STORED}
    assert stored | waiting == set(names)
    assert not stored & waiting


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_jobs_are_waited_for_in_the_order_of_their_keys(
    catalog: Catalog, notices: Notices
) -> None:
    """As a heartbeat asks for them, which would wait for a notice that waits for the heartbeat."""
    await notices.take(ok("a"))
    await notices.take(ask("z"))
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    async def is_waiting() -> bool:
        return bool(await catalog.read(lambda connection: connection.scalar(waiting)))

    async def heartbeat(connection: AsyncConnection) -> asyncio.Future[tuple[Taken, Taken]]:
        await connection.execute(text("SELECT 1 FROM jobs WHERE request_id = 'a' FOR UPDATE"))
        taking = asyncio.gather(notices.take(ok("a")), notices.take(ok("z")))
        await wait_for(is_waiting)
        await connection.execute(
            text("SELECT 1 FROM jobs WHERE request_id = 'z' FOR UPDATE NOWAIT")
        )
        return taking

    taking = await catalog.write(heartbeat)
    assert list(await taking) == [Taken.DUPLICATE, Taken.ACCEPTED]


@pytest.mark.parametrize("gated", [True, False, None])
async def test_further_clips_are_shown_to_whom_the_first_is(
    notices: Notices, generations: Generations, gated: bool | None
) -> None:
    await put(generations, gated=gated)
    await put(generations, request_id="a_3", gated=False)
    names = ("a", "a_2", "a_3")
    clips = tuple(Registration(request_id=name, fal_url=f"{URL}/{name}") for name in names)
    several = Notice(request_id="a", clips=clips)
    assert await notices.take(several) == "accepted"
    assert [(await row(generations, name)).gated for name in names] == [gated, gated, False]
    assert await notices.take(several) == "duplicate"
