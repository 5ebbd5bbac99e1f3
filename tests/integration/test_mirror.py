"""A mirror job brings a clip into the bucket by the viewers' own corridor, with no viewer."""

import asyncio
import hashlib
import time
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog.job_rows import NewJob
from proxy.errors import ClipGone, ClipNotReady, ObjectConflict, StillKept, UnknownClip
from proxy.records import JobKind, JobState, Registration, Status
from proxy.storage import keys
from proxy.storage.bucket import NewObject, ObjectInfo
from tests.fakes.bucket import FaultyBucket
from tests.fakes.fal import Behaviour, Clip, make_clip
from tests.fixtures.looking import in_bucket, metric, nothing_is_left, objects, viewers
from tests.fixtures.origin import ADMIN_TOKEN, MakeOrigin, Origin, wait_for
from tests.fixtures.truth import Truth


async def mirrored(origin: Origin, request_id: str) -> None:
    await origin.app.corridor.mirrors.mirror(request_id)


async def put(origin: Origin, request_id: str, data: bytes, **metadata: str) -> None:
    """Let somebody else write an object."""
    path = origin.app.settings.data_dir / "theirs"
    path.write_bytes(data)
    new = NewObject(
        key=keys.clip_key(request_id),
        size=len(data),
        content_type="video/mp4",
        metadata=metadata,
    )
    upload = origin.app.bucket.upload(new, path)
    await upload.advance(len(data))
    await upload.commit(hashlib.sha256(data).hexdigest())
    path.unlink()


async def test_a_clip_that_nobody_views_is_stored(origin: Origin) -> None:
    data = make_clip(700_000, 1)
    await origin.clip("unseen", data)
    await mirrored(origin, "unseen")
    row = await origin.row("unseen")
    assert row is not None
    assert row.status is Status.STORED
    assert await in_bucket(origin, "unseen") == data
    await nothing_is_left(origin)
    _, body = await origin.get("unseen")
    assert body == data
    assert origin.gets("unseen") == 1


async def test_a_second_mirror_asks_nobody(origin: Origin) -> None:
    await origin.clip("twice", make_clip(100_000, 2))
    await mirrored(origin, "twice")
    await mirrored(origin, "twice")
    assert origin.gets("twice") == 1


async def test_a_viewer_who_arrives_joins_the_mirrors_fill(origin: Origin) -> None:
    data, rest = make_clip(1_000_000, 3), asyncio.Event()
    await origin.clip("joined", data, Behaviour(stall_at=500_000, stall_until=rest))
    job = asyncio.create_task(mirrored(origin, "joined"))

    async def is_flying() -> bool:
        flight = origin.app.flights.get("joined")
        return flight is not None and flight.is_ready

    await wait_for(is_flying)
    view = asyncio.create_task(origin.get("joined"))
    await viewers(origin, 1)
    rest.set()
    response, body = await view
    assert body == data
    assert "collapsed" in response.headers["Cache-Status"]
    await job
    assert origin.gets("joined") == 1


async def test_a_mirror_joins_the_viewers_fill(origin: Origin) -> None:
    data, rest = make_clip(1_000_000, 4), asyncio.Event()
    await origin.clip("viewed", data, Behaviour(stall_at=500_000, stall_until=rest))
    view = asyncio.create_task(origin.get("viewed"))
    await viewers(origin, 1)
    job = asyncio.create_task(mirrored(origin, "viewed"))
    await asyncio.sleep(0.05)
    rest.set()
    await job
    _, body = await view
    assert body == data
    assert origin.gets("viewed") == 1


async def test_a_mirror_that_is_cancelled_stops_no_fill(origin: Origin) -> None:
    data, rest = make_clip(600_000, 5), asyncio.Event()
    await origin.clip("left", data, Behaviour(stall_at=300_000, stall_until=rest))
    job = asyncio.create_task(mirrored(origin, "left"))

    async def is_flying() -> bool:
        return origin.app.flights.get("left") is not None

    await wait_for(is_flying)
    job.cancel()
    await asyncio.wait({job})
    rest.set()
    _, body = await origin.get("left")
    assert body == data
    await origin.stored("left")
    assert origin.gets("left") == 1


async def test_many_mirrors_of_one_clip_are_one_fill(origin: Origin) -> None:
    await origin.clip("one", make_clip(300_000, 6), Behaviour(delay=0.1))
    await asyncio.gather(*(mirrored(origin, "one") for _ in range(20)))
    assert origin.gets("one") == 1
    assert metric(origin, "firstview_stored_total") == 1


# -- the bandwidth budget ---


async def test_mirrors_keep_to_their_bandwidth(make_origin: MakeOrigin) -> None:
    origin = await make_origin(mirror_bandwidth="1MiB")
    clips = [f"slow{number}" for number in range(4)]
    for number, name in enumerate(clips):
        await origin.clip(name, make_clip(600_000, 10 + number))
    began = time.monotonic()
    await asyncio.gather(*(mirrored(origin, name) for name in clips))
    # 2.4 MB at 1 MiB a second, of which the first second is paid for in advance.
    assert time.monotonic() - began > 1.2


async def test_a_viewer_never_waits_for_the_mirrors_bandwidth(make_origin: MakeOrigin) -> None:
    origin = await make_origin(mirror_bandwidth="64KiB")
    data = make_clip(2_000_000, 20)
    await origin.clip("wanted", data)
    job = asyncio.create_task(mirrored(origin, "wanted"))

    async def is_held_back() -> bool:
        flight = origin.app.flights.get("wanted")
        return flight is not None and flight.spool is not None and flight.spool.mark.written > 0

    await wait_for(is_held_back)
    began = time.monotonic()
    _, body = await origin.get("wanted")
    assert body == data
    assert time.monotonic() - began < 10  # 30 s at the mirrors' pace
    await job


# -- no room ---


async def test_a_clip_without_room_waits_for_it_and_is_hurried_by_nobody(
    make_origin: MakeOrigin,
) -> None:
    origin = await make_origin(
        worker=True, cache_max_bytes="1MiB", job_attempts=2, job_backoff_max="200ms"
    )
    await origin.clip("large", make_clip(2_000_000, 21))
    await origin.clip("small", make_clip(100_000, 22))
    now = datetime.now(UTC)
    jobs = origin.app.labour.jobs
    await jobs.file(
        [
            NewJob(request_id=name, kind=JobKind.MIRROR, created_at=now)
            for name in ("large", "small")
        ]
    )
    await origin.stored("small")

    async def was_tried_often() -> bool:
        return origin.gets("large") > 3

    await wait_for(was_tried_often)

    async def waits() -> bool:
        job = await jobs.get("large", JobKind.MIRROR)
        assert job is not None
        return job.attempts == 0 and (job.last_error or "").startswith("disk-exhausted")

    await wait_for(waits)


# -- what is in the bucket already ---


async def test_a_commit_whose_row_was_never_written_is_found_not_fetched_again(
    origin: Origin,
) -> None:
    data = make_clip(400_000, 30)
    path = await origin.clip("committed", data)
    await mirrored(origin, "committed")
    row = await origin.stored("committed")  # and nobody here has it in hand any more
    await origin.app.catalog.write(_forget_stored)
    origin.fal.forget()
    await mirrored(origin, "committed")
    assert await origin.row("committed") is not None
    again = await origin.row("committed")
    assert again is not None
    assert (again.status, again.etag, again.sha256) == (Status.STORED, row.etag, row.sha256)
    assert origin.fal.requests(path) == []


async def _forget_stored(connection: AsyncConnection) -> None:
    """As if the process had died between its commit and its note."""
    await connection.execute(
        text("UPDATE generations SET status = 'available', mirrored_at = NULL")
    )


async def test_a_clip_that_somebody_else_has_brought_is_adopted(origin: Origin) -> None:
    data = make_clip(300_000, 31)
    path = await origin.clip("theirs", data)
    await put(origin, "theirs", data)
    await mirrored(origin, "theirs")
    row = await origin.row("theirs")
    assert row is not None
    assert row.status is Status.STORED
    assert origin.fal.requests(path) == []
    response, body = await origin.get("theirs")
    assert body == data
    assert response.headers["ETag"] == f'"{row.etag}"'


@pytest.mark.usefixtures("aws_environment")
async def test_what_an_object_calls_a_digest_and_is_none_gets_into_no_row(
    make_origin: MakeOrigin, truth: Truth
) -> None:
    """PostgreSQL takes no more than its 64 digits, and the job would die of the rest."""
    origin = await make_origin(bucket_url=truth.url)
    data = make_clip(300_000, 36)
    await origin.clip("odd", data)
    truth.put("odd", data, Metadata={keys.META_SHA256: "x" * 65})
    await mirrored(origin, "odd")
    row = await origin.row("odd")
    assert row is not None
    assert (row.status, row.sha256) == (Status.STORED, None)


async def test_a_clip_that_is_gone_upstream_plays_if_somebody_else_has_brought_it(
    origin: Origin,
) -> None:
    data = make_clip(300_000, 32)
    await origin.clip("expired", data, Behaviour(status=403))
    await put(origin, "expired", data)
    _, body = await origin.get("expired")
    assert body == data


async def test_what_somebody_else_has_not_finished_is_not_adopted(origin: Origin) -> None:
    data = make_clip(300_000, 35)
    await origin.clip("begun", data)
    await put(origin, "begun", data[:200_000])
    with pytest.raises(ObjectConflict):
        await mirrored(origin, "begun")
    row = await origin.row("begun")
    assert row is not None
    assert row.status is Status.AVAILABLE


async def test_a_bucket_that_lost_a_clip_gets_it_back_from_the_local_copy(
    make_origin: MakeOrigin, s3_bucket_name: str, aws_environment: None
) -> None:
    origin = await make_origin(bucket_url=f"s3://{s3_bucket_name}")
    data = make_clip(700_000, 36)
    path = await origin.clip("dropped", data)
    await origin.get("dropped")
    await origin.stored("dropped")
    await origin.app.bucket.delete(keys.clip_key("dropped"))
    await origin.app.generations.note_missing("dropped")
    origin.fal.add(path, data, Behaviour(status=410))
    origin.fal.forget()
    await mirrored(origin, "dropped")
    assert await in_bucket(origin, "dropped") == data
    assert origin.fal.requests(path) == []
    row = await origin.stored("dropped")
    assert row.sha256 == hashlib.sha256(data).hexdigest()


async def test_what_is_no_clip_is_neither_adopted_nor_overwritten(origin: Origin) -> None:
    await origin.clip("notes", make_clip(200_000, 33))
    await put(origin, "notes", b"<html>not found</html>" * 100)
    with pytest.raises(ObjectConflict):
        await mirrored(origin, "notes")
    assert (await in_bucket(origin, "notes")).startswith(b"<html>")
    row = await origin.row("notes")
    assert row is not None
    assert row.status is Status.AVAILABLE


# -- what cannot be mirrored ---


async def test_what_is_unknown_pending_or_gone_is_called_so(origin: Origin) -> None:
    with pytest.raises(UnknownClip):
        await mirrored(origin, "unknown")
    await origin.app.generations.register([Registration(request_id="waiting")])
    with pytest.raises(ClipNotReady):
        await mirrored(origin, "waiting")
    await origin.clip("lost", make_clip(1000, 34), Behaviour(status=404))
    row = await origin.row("lost")
    assert row is not None
    assert row.fal_url is not None
    a_year_ago = row.created_at.replace(year=row.created_at.year - 1)
    for moment in (a_year_ago, a_year_ago, row.created_at):
        await origin.app.generations.note_refusal("lost", row.fal_url, moment)
    with pytest.raises(ClipGone):
        await mirrored(origin, "lost")


async def test_a_bucket_that_is_down_keeps_the_clip_and_costs_no_second_fetch(
    faulty_bucket: FaultyBucket, s3_bucket_name: str, make_origin: MakeOrigin
) -> None:
    origin = await make_origin(bucket_url=f"s3://{s3_bucket_name}", bucket_attempts=1)
    data, rest = make_clip(500_000, 40), asyncio.Event()
    await origin.clip("kept", data, Behaviour(stall_at=250_000, stall_until=rest))
    job = asyncio.create_task(mirrored(origin, "kept"))

    async def is_flying() -> bool:
        flight = origin.app.flights.get("kept")
        return flight is not None and flight.is_ready

    await wait_for(is_flying)
    await faulty_bucket.down()
    rest.set()
    with pytest.raises(StillKept):
        await job
    _, body = await origin.get("kept")
    assert body == data
    with pytest.raises(StillKept):
        await mirrored(origin, "kept")
    await faulty_bucket.up()
    await origin.stored("kept")
    assert await objects(origin) == [keys.clip_key("kept")]
    assert origin.gets("kept") == 1


# -- with the worker ---


async def test_a_worker_in_the_origin_does_what_is_filed(make_origin: MakeOrigin) -> None:
    origin = await make_origin(worker=True)
    data = make_clip(300_000, 50)
    await origin.clip("filed", data)
    row = await origin.row("filed")
    assert row is not None
    await origin.app.labour.jobs.file(
        [NewJob(request_id="filed", kind=JobKind.MIRROR, created_at=row.created_at)]
    )
    await origin.stored("filed")
    assert await in_bucket(origin, "filed") == data

    async def is_gone() -> bool:
        return await origin.app.labour.jobs.get("filed", JobKind.MIRROR) is None

    await wait_for(is_gone)


async def test_a_first_view_makes_sure_of_a_job(origin: Origin) -> None:
    clip, rest = Clip(3_000_000, 51), asyncio.Event()
    await origin.clip("first", clip, Behaviour(stall_at=1_000_000, stall_until=rest))
    view = asyncio.create_task(origin.get("first"))

    async def has_job() -> JobState | None:
        job = await origin.app.labour.jobs.get("first", JobKind.MIRROR)
        return None if job is None or not job.asked else job.state(job.created_at)

    await wait_for(has_job)
    rest.set()
    await view
    await origin.stored("first")
    assert await origin.app.labour.jobs.get("first", JobKind.MIRROR) is None


async def test_a_source_that_refuses_long_enough_ends_as_lost_not_as_a_dead_job(
    make_origin: MakeOrigin,
) -> None:
    origin = await make_origin(worker=True, job_attempts=2)
    await origin.clip("refused", make_clip(1000, 52), Behaviour(status=404))
    row = await origin.row("refused")
    assert row is not None
    assert row.fal_url is not None
    await origin.app.labour.jobs.file(
        [NewJob(request_id="refused", kind=JobKind.MIRROR, created_at=row.created_at)]
    )

    async def was_refused_often() -> bool:
        found = await origin.row("refused")
        return found is not None and found.refusals > 3

    await wait_for(was_refused_often)
    await origin.app.catalog.write(_an_hour_ago)

    async def is_lost() -> bool:
        found = await origin.row("refused")
        return found is not None and found.status is Status.LOST

    async def is_counted() -> bool:
        return metric(origin, "firstview_lost_total") == 1

    await wait_for(is_lost)
    assert await origin.app.labour.jobs.get("refused", JobKind.MIRROR) is None
    await wait_for(is_counted)


async def _an_hour_ago(connection: AsyncConnection) -> None:
    """As if the first refusal had been then."""
    hour = 3600 * 1_000_000
    await connection.execute(
        text(f"UPDATE generations SET first_refused_at = first_refused_at - {hour}")
    )


async def test_an_id_that_is_pointed_elsewhere_meanwhile_is_not_mirrored_from_where_it_was(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A viewer would join that fill, and every cache would keep the former clip for a year."""
    data = make_clip(300_000, 61)
    former = await origin.clip("moved", make_clip(300_000, 60), Behaviour(rate=100_000))
    looking, go, head = asyncio.Event(), asyncio.Event(), origin.app.bucket.head

    async def held(key: str) -> ObjectInfo | None:
        looking.set()
        await go.wait()
        return await head(key)

    monkeypatch.setattr(origin.app.bucket, "head", held)
    job = asyncio.create_task(mirrored(origin, "moved"))
    await looking.wait()
    async with origin.client.put(
        origin.admin("/api/v1/generations/moved"),
        json={"fal_url": origin.fal.add("/files/b/elsewhere.mp4", data)},
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
    ) as response:
        assert response.status == 200
    go.set()
    await job
    _, body = await origin.get("moved")
    assert body == data
    assert origin.fal.gets(former) == []
