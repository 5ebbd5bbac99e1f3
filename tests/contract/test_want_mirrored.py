"""Clips that somebody was bringing in when a process died get their jobs, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from proxy.catalog.engine import Catalog
from proxy.catalog.generations import Generations
from proxy.catalog.jobs import Jobs
from proxy.records import ClipFacts, JobKind, Registration
from tests.fixtures.clock import StandingClock

NOON = datetime(2026, 10, 21, 12, tzinfo=UTC)
LEASE = timedelta(minutes=1)


@pytest.fixture
def generations(catalog: Catalog, clock: StandingClock) -> Generations:
    return Generations(catalog, clip_url=lambda name: f"https://cdn.example/{name}", clock=clock)


@pytest.fixture
def jobs(catalog: Catalog, clock: StandingClock) -> Jobs:
    return Jobs(catalog, clock=clock)


async def put(generations: Generations, request_id: str, url: str | None = "") -> None:
    url = f"https://fal.media/files/{request_id}.mp4" if url == "" else url
    await generations.register([Registration(request_id=request_id, fal_url=url)])


async def test_a_clip_that_can_be_fetched_gets_a_job_that_was_asked_for(
    generations: Generations, jobs: Jobs
) -> None:
    await put(generations, "a")
    await generations.want_mirrored(["a", "a"])
    job = await jobs.get("a", JobKind.MIRROR)
    assert job is not None
    assert (job.asked, job.lease_owner) == (True, None)
    await generations.want_mirrored(["a"])
    assert await jobs.get("a", JobKind.MIRROR) == job


async def test_what_is_unknown_unfetchable_or_stored_gets_none(
    generations: Generations, jobs: Jobs
) -> None:
    await put(generations, "pending", None)
    await generations.mark_failed("failed", "no")
    facts = ClipFacts(request_id="stored", length=9, etag="e", last_modified=NOON)
    await generations.mark_stored("stored", "https://fal.media/files/s.mp4", facts, "00", NOON)
    await generations.want_mirrored(["pending", "failed", "stored", "nobody"])
    assert (await jobs.list()).items == ()
    await generations.want_mirrored([])


async def test_a_job_that_somebody_works_on_stays_theirs(
    generations: Generations, jobs: Jobs
) -> None:
    await put(generations, "a")
    await generations.want_mirrored(["a"])
    [held] = await jobs.claim(JobKind.MIRROR, "worker", 1, LEASE)
    await generations.want_mirrored(["a"])
    assert await jobs.claim(JobKind.MIRROR, "another", 1, LEASE) == []
    assert await jobs.extend([held], LEASE) == {("a", JobKind.MIRROR)}
