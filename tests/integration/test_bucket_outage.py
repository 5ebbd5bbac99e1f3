"""A bucket that fails in every way: viewers never notice, and the clip gets there in the end.

The whole app runs against a real S3 server behind a proxy that misbehaves. What the bucket really
holds is asked past that proxy.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.records import Registration
from proxy.storage import keys
from tests.fakes.bucket import Fault, FaultyBucket
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.origin import MakeOrigin, Origin, running_origin, wait_for
from tests.fixtures.raw import raw_client
from tests.fixtures.truth import Truth

MIB = 1024 * 1024
SMALL, LARGE = 400_000, 6 * MIB
HANGS = 3600.0
QUICK: dict[str, Any] = {
    "single_put_max": "1MiB",
    "part_size": "5MiB",
    "bucket_attempts": 2,
    "bucket_timeout": "400ms",
    "bucket_connect_timeout": "400ms",
    "bucket_retry_wait": "100ms",
    "bucket_retry_max_wait": "300ms",
    "drain_timeout": "300ms",
}

ANY = "*"
FAULTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "500": (SMALL, ANY, {"status": 500}),
    "503 SlowDown": (SMALL, ANY, {"status": 503, "code": "SlowDown"}),
    "403": (SMALL, ANY, {"status": 403, "code": "AccessDenied"}),
    "hangs": (SMALL, ANY, {"delay": HANGS}),
    "put stalls": (SMALL, "PutObject", {"stall_request_at": 100_000}),
    "put is reset": (SMALL, "PutObject", {"reset_request_at": 100_000}),
    "put's reply is lost": (SMALL, "PutObject", {"lose_reply": True}),
    "put is refused with 501": (SMALL, "PutObject", {"status": 501, "code": "NotImplemented"}),
    "large, 500": (LARGE, ANY, {"status": 500}),
    "large, hangs": (LARGE, ANY, {"delay": HANGS}),
    "begin's reply is lost": (LARGE, "CreateMultipartUpload", {"lose_reply": True}),
    "part stalls": (LARGE, "UploadPart", {"stall_request_at": MIB}),
    "part is reset": (LARGE, "UploadPart", {"reset_request_at": MIB}),
    "part's reply is lost": (LARGE, "UploadPart", {"lose_reply": True}),
    "part is refused with 501": (LARGE, "UploadPart", {"status": 501, "code": "NotImplemented"}),
    "end hangs": (LARGE, "CompleteMultipartUpload", {"delay": HANGS}),
    "end's reply is lost": (LARGE, "CompleteMultipartUpload", {"lose_reply": True}),
    "end says InvalidPart": (
        LARGE,
        "CompleteMultipartUpload",
        {"status": 400, "code": "InvalidPart"},
    ),
}
ONLY_REPLIES = {name for name, (_, _, how) in FAULTS.items() if "lose_reply" in how}


def fault(name: str) -> tuple[int, Fault]:
    size, operation, how = FAULTS[name]
    return size, Fault(operation=operation, times=1_000_000, **how)


@asynccontextmanager
async def origin_of(
    tmp_path: Path, fal: FakeFal, truth: Truth, **changes: Any
) -> AsyncIterator[Origin]:
    settings = {"bucket_url": truth.url, **QUICK, **changes}
    async with running_origin(tmp_path / "data", fal, **settings) as origin:
        yield origin


async def landed(origin: Origin) -> None:
    """Wait until no fill is under way."""

    async def look() -> bool:
        return len(origin.app.flights) == 0

    await wait_for(look)


def whole_or_nothing(truth: Truth, data: dict[str, bytes]) -> None:
    """Nothing partial or foreign is visible, ever."""
    for key in truth.keys():  # noqa: SIM118 - a list
        request_id = key.removeprefix("videos/").removesuffix(".mp4")
        assert truth.body(request_id) == data[request_id]


def tried(origin: Origin, times: int = 1) -> Callable[[], Any]:
    """Whether attempts to store anything have failed so often."""

    async def look() -> bool:
        failures = origin.app.metrics.store_failures
        counted = [s.value for m in failures.collect() for s in m.samples if "_total" in s.name]
        return sum(counted) >= times

    return look


async def in_the_end(origin: Origin, truth: Truth, request_id: str, data: bytes) -> None:
    """The clip is stored, whole, and nothing of the way there is left anywhere."""
    row = await origin.stored(request_id, 20)
    assert row.content_length == len(data)
    assert truth.body(request_id) == data

    async def nothing_left() -> bool:
        return origin.leftovers() == truth.uploads() == []

    await wait_for(nothing_left)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_viewer_does_not_notice_and_the_clip_is_stored_once_the_fault_has_passed(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, name: str
) -> None:
    """Peers 6 (harbor#20157), 37 (athens#1957): a failed write leaves nothing, a clip is whole."""
    size, wrong = fault(name)
    data = make_clip(size, 1)
    async with origin_of(tmp_path, fal, truth) as origin:
        faulty_bucket.faults.append(wrong)
        await origin.clip("clip", data)
        response, body = await origin.get("clip")
        assert response.status == 200
        assert body == data
        if name not in ONLY_REPLIES:
            await wait_for(tried(origin))
            assert truth.keys() == []
            assert origin.leftovers() != []
        await landed(origin)
        hit, body = await origin.get("clip", {"Range": "bytes=1000-1999"})
        assert body == data[1000:2000]
        assert hit.headers["Cache-Status"] == "firstview; hit; detail=disk"
        assert hit.headers["ETag"] == response.headers["ETag"]
        whole_or_nothing(truth, {"clip": data})
        faulty_bucket.faults.clear()
        await in_the_end(origin, truth, "clip", data)
        assert origin.gets("clip") == 1


@pytest.mark.parametrize(
    "name", ["500", "403", "hangs", "put stalls", "large, 500", "part stalls", "end hangs"]
)
async def test_a_restart_during_the_outage_stores_the_clip_without_another_fetch(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, name: str
) -> None:
    size, wrong = fault(name)
    data = make_clip(size, 2)
    faulty_bucket.faults.append(wrong)
    async with origin_of(tmp_path, fal, truth) as origin:
        await origin.clip("clip", data)
        first, body = await origin.get("clip")
        assert body == data
    fal.forget()
    async with origin_of(tmp_path, fal, truth) as again:
        hit, body = await again.get("clip")
        assert body == data
        assert hit.headers["Cache-Status"] == "firstview; hit; detail=disk"
        assert hit.headers["ETag"] == first.headers["ETag"]
        assert hit.headers["Last-Modified"] == first.headers["Last-Modified"]
        faulty_bucket.faults.clear()
        await in_the_end(again, truth, "clip", data)
    assert fal.gets() == []


async def test_a_bucket_that_is_away_costs_neither_the_viewer_nor_the_clip_anything(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    small, large = make_clip(SMALL, 3), make_clip(LARGE, 4)
    async with origin_of(tmp_path, fal, truth) as origin:
        await faulty_bucket.down()
        for name, data in (("small", small), ("large", large)):
            await origin.clip(name, data)
            _, body = await origin.get(name)
            assert body == data

        async def both_are_kept() -> bool:
            async with origin.client.get(origin.admin("/metrics")) as page:
                return "firstview_kept_clips 2.0" in await page.text()

        await wait_for(tried(origin, 2))
        await wait_for(both_are_kept)
        await faulty_bucket.up()
        await origin.stored("small")
        await origin.stored("large")
        await in_the_end(origin, truth, "small", small)
        await in_the_end(origin, truth, "large", large)
        assert (origin.gets("small"), origin.gets("large")) == (1, 1)


async def test_a_bucket_that_does_not_exist_yet_gets_the_clip_when_it_does(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    data = make_clip(SMALL, 5)
    truth.client.delete_bucket(Bucket=truth.name)
    try:
        async with origin_of(tmp_path, fal, truth) as origin:
            await origin.clip("clip", data)
            _, body = await origin.get("clip")
            assert body == data
            await wait_for(tried(origin))
            truth.client.create_bucket(Bucket=truth.name)
            await in_the_end(origin, truth, "clip", data)
            assert origin.gets("clip") == 1
    finally:
        if truth.name not in [b["Name"] for b in truth.client.list_buckets()["Buckets"]]:
            truth.client.create_bucket(Bucket=truth.name)


# -- a bucket that hangs ---


async def test_the_first_byte_and_the_last_do_not_wait_for_a_bucket_that_hangs(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    """Peers 38 (dragonfly#2693): nobody waits for ever for the first piece."""
    faulty_bucket.faults.append(fault("large, hangs")[1])
    data, rest = make_clip(LARGE, 6), asyncio.Event()
    async with origin_of(tmp_path, fal, truth, bucket_timeout="60s") as origin:
        await origin.clip("clip", data, Behaviour(stall_at=5 * MIB + 100, stall_until=rest))
        async with raw_client(origin.app.public_port) as viewer:
            await viewer.ask("/videos/clip.mp4")
            await viewer.head()
            first = await viewer.read(5 * MIB)
            rest.set()
            assert first + await viewer.read(LARGE - 5 * MIB) == data
        await faulty_bucket.down()  # or stopping would wait for it


async def test_a_bucket_that_hangs_takes_no_fills_place(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    faulty_bucket.faults.append(fault("hangs")[1])
    async with origin_of(tmp_path, fal, truth, bucket_timeout="60s", max_fills=1) as origin:
        for number in range(4):
            data = make_clip(SMALL, 10 + number)
            await origin.clip(f"clip-{number}", data)
            response, body = await origin.get(f"clip-{number}")
            assert (response.status, body) == (200, data)
            await landed(origin)
        assert len(origin.app.ownership) == 4


async def test_viewers_of_a_source_that_fails_do_not_wait_for_the_upload_to_be_aborted(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    """Peers 35 (trafficserver#4251): a source that dies mid-body hangs nobody."""
    rest = asyncio.Event()
    changes = {"bucket_timeout": "60s", "fill_stall_timeout": "100ms"}
    async with origin_of(tmp_path, fal, truth, **changes) as origin:
        path = await origin.clip("clip", make_clip(LARGE, 7))
        fal.script(
            path, [Behaviour(stall_at=5 * MIB + 100, stall_until=rest, cut_at=5 * MIB + 200)]
        )
        viewer = asyncio.create_task(origin.get("clip"))

        async def part_is_sent() -> bool:
            return bool(faulty_bucket.seen("UploadPart"))

        await wait_for(part_is_sent)
        faulty_bucket.faults.append(Fault(operation="AbortMultipartUpload", delay=HANGS))
        fal.add(path, b"", Behaviour(status=404))
        began = time.monotonic()
        rest.set()
        [outcome] = await asyncio.gather(viewer, return_exceptions=True)
        assert isinstance(outcome, Exception)  # reset, not ended
        assert time.monotonic() - began < 20
        assert truth.keys() == []
        await faulty_bucket.down()  # or stopping would wait for it


async def test_an_upload_that_nobody_needs_is_aborted_when_the_bucket_is_back(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    """Peers 7 (quay#6885, ocis#4968), 8 (scylladb#20425): aborts are repeated until they hold."""
    rest = asyncio.Event()
    async with origin_of(tmp_path, fal, truth, fill_stall_timeout="100ms") as origin:
        path = await origin.clip("clip", make_clip(LARGE, 8))
        fal.script(
            path, [Behaviour(stall_at=5 * MIB + 100, stall_until=rest, cut_at=5 * MIB + 200)]
        )
        viewer = asyncio.create_task(origin.get("clip"))

        async def part_is_sent() -> bool:
            return bool(faulty_bucket.seen("UploadPart"))

        await wait_for(part_is_sent)
        await faulty_bucket.down()
        fal.add(path, b"", Behaviour(status=404))
        rest.set()
        await asyncio.gather(viewer, return_exceptions=True)
        assert truth.uploads() == [keys.clip_key("clip")]
        await faulty_bucket.up()

        async def nothing_open() -> bool:
            return truth.uploads() == []

        await wait_for(nothing_open)
        assert truth.keys() == []
        assert origin.leftovers() == []


async def test_an_upload_that_an_outage_interrupts_goes_on_where_it_was(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    data = make_clip(LARGE, 9)
    async with origin_of(tmp_path, fal, truth, bucket_timeout="20s") as origin:
        faulty_bucket.faults.append(fault("end says InvalidPart")[1])
        faulty_bucket.faults[0].status = 503
        await origin.clip("clip", data)
        await origin.get("clip")
        await wait_for(tried(origin, 2))
        faulty_bucket.faults.clear()
        await in_the_end(origin, truth, "clip", data)
        assert len(faulty_bucket.seen("CreateMultipartUpload")) == 1
        assert len(faulty_bucket.seen("UploadPart")) == 2


# -- a slow bucket, and one with R2's limits ---


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_nothing_is_visible_before_all_of_it_is(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, size: int
) -> None:
    """Peers 1 (artifact-keeper#1912): whoever looks meanwhile sees nothing, or the whole."""
    data, operations = make_clip(size, 20), ("PutObject", "UploadPart")
    slow = [Fault(operation=each, times=100, rate=size / 10) for each in operations]
    faulty_bucket.faults += slow
    async with origin_of(tmp_path, fal, truth, bucket_timeout="5s") as origin:
        await origin.clip("slow", data)
        _, body = await origin.get("slow")
        assert body == data
        looks = 0
        while truth.head("slow") is None:
            looks += 1
            assert truth.body("slow") in {None, data}
            await asyncio.sleep(0.01)
            for each in slow if looks > 3 else []:
                each.rate = size * 4.0
        assert looks > 3  # the viewer had all of it long before
        assert truth.body("slow") == data
        await in_the_end(origin, truth, "slow", data)


async def test_two_writes_to_a_key_within_a_second_are_spaced_as_r2_wants_them(
    tmp_path: Path, fal: FakeFal, r2_bucket: FaultyBucket, truth: Truth
) -> None:
    old, new = make_clip(SMALL, 21), make_clip(SMALL + 1, 22)
    assert r2_bucket.rules is not None
    r2_bucket.rules.between = 3600.0  # a second may have passed here by the second write

    async def is_refused() -> bool:
        return 429 in {seen.status for seen in r2_bucket.seen("PutObject")}

    async with origin_of(tmp_path, fal, truth) as origin:
        await origin.clip("clip", old)
        await origin.get("clip")
        await origin.stored("clip")
        fal.add("/new.mp4", new)
        await origin.app.generations.register(
            [Registration(request_id="clip", fal_url=fal.url("/new.mp4"))]
        )
        await origin.app.locator.forget("clip")
        _, body = await origin.get("clip")
        assert body == new
        await wait_for(is_refused)
        r2_bucket.rules.between = 0.0
        await in_the_end(origin, truth, "clip", new)


# -- the disk meanwhile ---


async def test_kept_clips_count_against_the_budget_and_then_clips_are_streamed_through(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    """Peers 32 (varnish#2038): without room a clip is sent, whole, and not called stored."""
    one, two = make_clip(SMALL, 23), make_clip(SMALL, 24)
    async with origin_of(tmp_path, fal, truth, cache_max_bytes="600KB") as origin:
        await faulty_bucket.down()
        await origin.clip("one", one)
        await origin.get("one")
        await wait_for(tried(origin))
        await origin.clip("two", two)
        for times in (1, 2):
            response, body = await origin.get("two")
            assert body == two
            assert "stored" not in response.headers["Cache-Status"]
            assert origin.app.metrics.passthrough.labels("disk")._value.get() == times
        hit, body = await origin.get("one")
        assert body == one
        assert hit.headers["Cache-Status"] == "firstview; hit; detail=disk"
        await faulty_bucket.up()
        await in_the_end(origin, truth, "one", one)
        _, body = await origin.get("two")  # what is stored may be evicted
        assert body == two
        await in_the_end(origin, truth, "two", two)
        assert origin.app.disk.used <= 600_000


async def test_a_kept_file_that_changed_on_the_disk_is_never_uploaded(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    good, bad = make_clip(SMALL, 25), make_clip(SMALL, 26)
    async with origin_of(tmp_path, fal, truth) as origin:
        await faulty_bucket.down()
        for name, data in (("good", good), ("bad", bad)):
            await origin.clip(name, data)
            await origin.get(name)
        await wait_for(tried(origin, 2))
        paths = origin.paths
    [kept] = (tmp_path / "data" / "spool").glob("bad.*.part")
    kept.write_bytes(bad[:-1] + b"?")
    await faulty_bucket.up()
    async with origin_of(tmp_path, fal, truth) as again:
        again.paths = paths
        await in_the_end(again, truth, "good", good)
        assert truth.head("bad") is None
        _, body = await again.get("bad")
        assert body == bad
        await in_the_end(again, truth, "bad", bad)
        assert (again.gets("good"), again.gets("bad")) == (1, 2)


async def test_a_kept_file_that_is_cut_short_while_it_waits_is_dropped_and_fetched_again(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    data = make_clip(SMALL, 27)
    async with origin_of(tmp_path, fal, truth) as origin:
        faulty_bucket.faults.append(fault("500")[1])
        await origin.clip("clip", data)
        await origin.get("clip")
        await wait_for(tried(origin))
        [kept] = (tmp_path / "data" / "spool").glob("*.part")
        with kept.open("r+b") as file:
            file.truncate(SMALL // 2)
        faulty_bucket.faults.clear()

        async def dropped() -> bool:
            return len(origin.app.ownership) == 0

        await wait_for(dropped)
        assert truth.keys() == []
        _, body = await origin.get("clip")
        assert body == data
        await in_the_end(origin, truth, "clip", data)


# -- the id means another clip by now ---


async def test_a_kept_clip_of_a_repointed_id_never_reaches_the_bucket(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    old, new = make_clip(SMALL, 28), make_clip(SMALL, 29)
    async with origin_of(tmp_path, fal, truth) as origin:
        faulty_bucket.faults.append(fault("hangs")[1])
        await origin.clip("clip", old)
        await origin.get("clip")
        fal.add("/new.mp4", new)
        await origin.app.generations.register(
            [Registration(request_id="clip", fal_url=fal.url("/new.mp4"))]
        )
        await origin.app.locator.forget("clip")
        _, body = await origin.get("clip")
        assert body == new
        faulty_bucket.faults.clear()
        await in_the_end(origin, truth, "clip", new)
        assert len(origin.app.ownership) == 0


async def test_a_clip_kept_from_before_never_replaces_what_its_id_was_pointed_at_since(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    old, new = make_clip(SMALL, 30), make_clip(SMALL, 31)
    shared = {"database_url": f"sqlite:///{tmp_path}/shared.sqlite"}
    async with origin_of(tmp_path, fal, truth, **shared) as origin:
        await faulty_bucket.down()
        await origin.clip("clip", old)
        await origin.get("clip")
        await wait_for(tried(origin))
    await faulty_bucket.up()
    settings = {"bucket_url": truth.url, **QUICK, **shared}
    async with running_origin(tmp_path / "elsewhere", fal, **settings) as elsewhere:
        fal.add("/new.mp4", new)
        await elsewhere.app.generations.register(
            [Registration(request_id="clip", fal_url=fal.url("/new.mp4"))]
        )
        _, body = await elsewhere.get("clip")
        assert body == new
        await in_the_end(elsewhere, truth, "clip", new)
    async with origin_of(tmp_path, fal, truth, **shared) as back:

        async def dropped() -> bool:
            return len(back.app.ownership) == 0

        await wait_for(dropped)
        assert truth.body("clip") == new
        _, body = await back.get("clip")
        assert body == new
        await landed(back)
        assert back.leftovers() == []


async def test_an_upload_left_open_by_a_process_that_was_killed_is_aborted_at_the_next_start(
    tmp_path: Path, make_origin: MakeOrigin, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    """Peers 7 (quay#6885): orphan parts after a kill."""
    spool = tmp_path / "data" / "spool"
    spool.mkdir(parents=True)
    (spool / "killed.0123456789abcdef.part").write_bytes(b"half a clip")
    for name in ("killed", "of-another-machine"):
        truth.client.create_multipart_upload(Bucket=truth.name, Key=keys.clip_key(name))
    await make_origin(bucket_url=truth.url, **QUICK)

    async def aborted() -> bool:
        return keys.clip_key("killed") not in truth.uploads()

    await wait_for(aborted)
    assert truth.uploads() == [keys.clip_key("of-another-machine")]  # it may be at work

    async def empty() -> bool:
        return list(spool.iterdir()) == []

    await wait_for(empty)
