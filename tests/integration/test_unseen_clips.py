"""Clips that nobody has viewed become owned all the same: jobs, worker, corridor, fal's API."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from proxy.catalog.job_rows import NewJob
from proxy.records import JobKind, Registration, Status
from tests.fakes.fal import Behaviour, make_clip
from tests.fakes.fal_api import FakeFalApi
from tests.fixtures.origin import MakeOrigin, Origin, wait_for

MODEL = "fal-ai/veo3"
DATA = make_clip(300_000)


@pytest.fixture
async def api() -> AsyncIterator[FakeFalApi]:
    async with FakeFalApi() as fake:
        yield fake


@pytest.fixture
async def working(make_origin: MakeOrigin, api: FakeFalApi) -> Origin:
    """A firstview that works on jobs, and may ask fal."""
    return await make_origin(
        worker=True,
        jobs_poll="20ms",
        job_backoff="20ms",
        resolve_pause="20ms",
        fal_key=api.key,
        fal_queue_url=api.queue_url,
        fal_api_url=api.api_url,
    )


async def file(origin: Origin, *ids: str, kind: JobKind = JobKind.MIRROR) -> None:
    now = datetime.now(UTC)
    await origin.app.labour.jobs.file(
        [NewJob(request_id=name, kind=kind, created_at=now) for name in ids]
    )
    origin.app.labour.worker.wake()


async def without_jobs(origin: Origin) -> None:
    async def none_left() -> bool:
        return not (await origin.app.labour.jobs.list()).items

    await wait_for(none_left)


async def test_a_clip_is_stored_because_a_job_says_so(working: Origin) -> None:
    await working.clip("a", DATA)
    await file(working, "a")
    await working.stored("a")
    await without_jobs(working)
    assert working.gets("a") == 1
    _, body = await working.get("a")
    assert body == DATA
    assert working.gets("a") == 1


async def test_a_job_for_a_clip_that_is_stored_fetches_nothing(working: Origin) -> None:
    await working.clip("a", DATA)
    await working.get("a")
    await working.stored("a")
    await file(working, "a")
    await without_jobs(working)
    assert working.gets("a") == 1


async def test_a_viewer_who_comes_while_a_job_mirrors_shares_its_fetch(working: Origin) -> None:
    go = asyncio.Event()
    await working.clip("a", DATA, Behaviour(stall_at=100_000, stall_until=go))
    await file(working, "a")

    async def in_flight() -> bool:
        flight = working.app.corridor.flights.get("a")
        return flight is not None and flight.facts is not None

    await wait_for(in_flight)
    viewing = asyncio.create_task(working.get("a"))
    go.set()
    _, body = await viewing
    assert body == DATA
    await working.stored("a")
    await without_jobs(working)
    assert working.gets("a") == 1


async def test_a_source_that_fails_for_a_while_is_asked_until_it_answers(working: Origin) -> None:
    path = await working.clip("a", DATA)
    working.fal.script(path, [Behaviour(status=500)] * 3)
    await file(working, "a")
    await working.stored("a")
    await without_jobs(working)


async def test_a_job_for_a_pending_clip_asks_fal_and_mirrors_what_it_says(
    working: Origin, api: FakeFalApi
) -> None:
    await working.app.generations.register([Registration(request_id="a", model=MODEL)])
    url = working.fal.add("/files/b/a/a.mp4", DATA)
    made = api.add("a", MODEL, state="IN_QUEUE", output={"video": {"url": url}})
    await file(working, "a")

    async def asked() -> bool:
        return len(api.targets("status")) > 1

    await wait_for(asked)
    made.state = "COMPLETED"
    await working.stored("a")
    await without_jobs(working)
    assert {asked.authorization for asked in api.asked} == {f"Key {api.key}"}
    assert all("authorization" not in request.headers for request in working.fal.requests())


async def test_a_view_of_a_pending_clip_asks_fal_and_gets_the_clip(
    working: Origin, api: FakeFalApi
) -> None:
    await working.app.generations.register([Registration(request_id="a", model=MODEL)])
    url = working.fal.add("/files/b/a/a.mp4", DATA)
    api.add("a", MODEL, output={"video": {"url": url}})
    response, body = await working.get("a")
    assert (response.status, body) == (200, DATA)
    await working.stored("a")


async def test_a_view_of_a_clip_that_fal_is_still_making_is_told_so(
    working: Origin, api: FakeFalApi
) -> None:
    await working.app.generations.register([Registration(request_id="a", model=MODEL)])
    api.add("a", MODEL, state="IN_PROGRESS")
    response, _ = await working.get("a")
    assert response.status == 404
    assert "Retry-After" in response.headers


async def test_a_view_of_a_clip_that_failed_at_fal_is_told_so(
    working: Origin, api: FakeFalApi
) -> None:
    await working.app.generations.register([Registration(request_id="a", model=MODEL)])
    api.add("a", MODEL, error="no")
    response, _ = await working.get("a")
    assert response.status == 410
    row = await working.row("a")
    assert row is not None
    assert row.status is Status.FAILED


async def test_a_worker_that_stops_in_the_middle_hands_its_job_back_and_lets_the_fill_go_on(
    working: Origin,
) -> None:
    await working.clip("a", DATA, Behaviour(stall_at=100_000, stall_for=3600.0))
    await file(working, "a")

    async def in_flight() -> bool:
        return working.app.corridor.flights.get("a") is not None

    await wait_for(in_flight)
    await working.app.labour.worker.close(0.0)
    job = await working.app.labour.jobs.get("a", JobKind.MIRROR)
    assert job is not None
    assert (job.lease_owner, job.attempts) == (None, 0)
    assert working.app.corridor.flights.get("a") is not None
