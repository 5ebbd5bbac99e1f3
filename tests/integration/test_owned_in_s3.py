"""The whole app with an S3 bucket: what it costs, what is kept there, and how it comes back."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.records import Generation, Registration
from proxy.storage import keys
from tests.fakes.bucket import FaultyBucket
from tests.fakes.fal import Behaviour, FakeFal, make_clip
from tests.fixtures.cache import is_cached
from tests.fixtures.origin import MakeOrigin, Origin, running_origin, wait_for
from tests.fixtures.truth import Truth

MIB = 1024 * 1024
IN_PARTS: dict[str, Any] = {"single_put_max": "1MiB", "part_size": "5MiB"}
LARGE = 11 * MIB + 300_000
STABLE = (
    "ETag",
    "Last-Modified",
    "Content-Length",
    "Content-Type",
    "Cache-Control",
    "Cache-Tag",
    "Accept-Ranges",
)


def costs(bucket: FaultyBucket) -> dict[str, int]:
    """Requests by operation, but for the look for unfinished uploads that every start takes."""
    counted = Counter(seen.operation for seen in bucket.log)
    del counted["ListMultipartUploads"]
    return dict(counted)


def stable(headers: Any) -> dict[str, str]:
    return {name: headers[name] for name in STABLE}


def count_reads(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids that the catalog is asked for from here on."""
    reads: list[str] = []
    at_hand = origin.app.generations.at_hand

    def counting(request_id: str) -> Generation | None:
        reads.append(request_id)
        return at_hand(request_id)

    monkeypatch.setattr(origin.app.generations, "at_hand", counting)  # `get` begins with it
    return reads


# -- the first view, and what it costs ---


async def test_a_first_view_costs_one_fetch_and_one_write_and_the_next_nothing_at_all(
    make_origin: MakeOrigin,
    r2_bucket: FaultyBucket,
    truth: Truth,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    origin = await make_origin(bucket_url=truth.url)
    data = make_clip(2 * MIB, 1)
    await origin.clip("small", data, Behaviour(content_type="application/octet-stream"), model="m")
    first, body = await origin.get("small")
    row = await origin.stored("small")
    assert body == truth.body("small") == data
    assert origin.gets("small") == 1
    assert costs(r2_bucket) == {"PutObject": 1}
    assert origin.leftovers() == []

    head = truth.head("small")
    assert head is not None
    digest = hashlib.sha256(data).hexdigest()
    assert head["ContentType"] == "video/mp4"
    assert head["Metadata"] == {
        keys.META_REQUEST_ID: "small",
        keys.META_ETAG: first.headers["ETag"].strip('"'),
        keys.META_LAST_MODIFIED: "2026-10-21T07:28:00+00:00",
        keys.META_MODEL: "m",
        keys.META_SHA256: digest,
    }
    assert (row.sha256, row.content_length) == (digest, len(data))

    reads = count_reads(origin, monkeypatch)
    for headers in ({}, {"Range": "bytes=1000000-"}, {"If-None-Match": first.headers["ETag"]}):
        again, body = await origin.get("small", headers)
        assert body in {data, data[1_000_000:], b""}
        assert again.headers["ETag"] == first.headers["ETag"]
        if again.status != 304:
            assert again.headers["Cache-Status"] == "firstview; hit; detail=disk"
    assert costs(r2_bucket) == {"PutObject": 1}
    assert reads == []
    assert origin.gets("small") == 1


async def test_a_large_clip_goes_up_in_equal_parts(
    make_origin: MakeOrigin, r2_bucket: FaultyBucket, truth: Truth
) -> None:
    origin = await make_origin(bucket_url=truth.url, bucket_conditional_complete=False, **IN_PARTS)
    data = make_clip(LARGE, 2)
    await origin.clip("large", data)
    _, body = await origin.get("large")
    await origin.stored("large")
    assert body == truth.body("large") == data
    sizes = sorted(int(part.headers["content-length"]) for part in r2_bucket.seen("UploadPart"))
    assert sizes == [LARGE - 10 * MIB, 5 * MIB, 5 * MIB]
    # R2 documents no condition for completing an upload, so the key is looked at before.
    assert costs(r2_bucket) == {
        "CreateMultipartUpload": 1,
        "UploadPart": 3,
        "HeadObject": 1,
        "CompleteMultipartUpload": 1,
    }
    head = truth.head("large")
    assert head is not None
    assert head["ContentType"] == "video/mp4"
    assert head["Metadata"][keys.META_REQUEST_ID] == "large"
    assert origin.gets("large") == 1
    assert truth.uploads() == []
    assert origin.leftovers() == []


async def test_parts_are_on_their_way_before_the_source_has_sent_its_last_byte(
    make_origin: MakeOrigin, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    origin = await make_origin(bucket_url=truth.url, **IN_PARTS)
    data, rest = make_clip(LARGE, 3), asyncio.Event()
    await origin.clip("early", data, Behaviour(stall_at=6 * MIB, stall_until=rest))
    viewer = asyncio.create_task(origin.get("early"))

    async def part_is_there() -> bool:
        return bool(faulty_bucket.seen("UploadPart"))

    await wait_for(part_is_there)
    assert truth.keys() == []  # nothing partial is ever visible
    assert truth.uploads() == [keys.clip_key("early")]
    rest.set()
    _, body = await viewer
    await origin.stored("early")
    assert body == truth.body("early") == data
    assert truth.uploads() == []


async def test_500_viewers_at_once_cause_one_fetch_and_one_write(
    make_origin: MakeOrigin, r2_bucket: FaultyBucket, truth: Truth
) -> None:
    """Peers 21 (distribution#3428), 23 (proxpi#68), 24 (bazel-remote#318)."""
    origin = await make_origin(bucket_url=truth.url)
    data = make_clip(200_000, 4)
    await origin.clip("crowd", data, Behaviour(first_byte_delay=0.2, delay=0.2))
    replies = await asyncio.gather(*(origin.get("crowd") for _ in range(500)))
    assert all(body == data for _, body in replies)
    await origin.stored("crowd")
    assert origin.gets("crowd") == 1
    assert costs(r2_bucket) == {"PutObject": 1}
    assert truth.body("crowd") == data


# -- the disk cache is empty again ---


async def own(origin: Origin, request_id: str, data: bytes) -> dict[str, str]:
    """Let a clip be viewed and stored; return what its reply said of it."""
    await origin.clip(request_id, data, model="fal-ai/veo3")
    response, body = await origin.get(request_id)
    assert body == data
    await origin.stored(request_id)
    return stable(response.headers)


def on(tmp_path: Path, disk: str, truth: Truth, **changes: Any) -> dict[str, Any]:
    """Settings of an instance with a disk of its own, and the catalog that all of them share."""
    return {
        "data_dir": tmp_path / disk,
        "bucket_url": truth.url,
        "database_url": f"sqlite:///{tmp_path}/shared.sqlite",
        **changes,
    }


@pytest.mark.parametrize("size", [700_000, LARGE])
async def test_with_an_empty_disk_a_stored_clip_comes_from_the_bucket(
    fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, tmp_path: Path, size: int
) -> None:
    data = make_clip(size, 5)
    async with running_origin(fal=fal, **on(tmp_path, "one", truth, **IN_PARTS)) as one:
        said = await own(one, "clip", data)
    fal.forget()
    faulty_bucket.log.clear()
    async with running_origin(fal=fal, **on(tmp_path, "two", truth)) as two:
        head = await two.client.head(two.url("clip"))
        assert stable(head.headers) == said
        assert costs(faulty_bucket) == {}  # the catalog knows
        response, body = await two.get("clip")
        assert body == data
        assert stable(response.headers) == said
        assert "detail=bucket" in response.headers["Cache-Status"]
        await two.stored("clip")
        again, body = await two.get("clip")
        assert body == data
        assert stable(again.headers) == said
        assert again.headers["Cache-Status"] == "firstview; hit; detail=disk"
        assert costs(faulty_bucket) == {"GetObject": 1}
        assert two.leftovers() == []
    assert fal.gets() == []


@pytest.mark.parametrize("field", [f"bytes={10 * MIB}-{10 * MIB + 99_999}", "bytes=-100000"])
async def test_a_far_range_of_a_stored_clip_comes_from_the_bucket_as_a_range(
    fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, tmp_path: Path, field: str
) -> None:
    """Peers 17 (ocache#196), 28 (nginx-s3-gateway#188): not by reading what lies before it."""
    data = make_clip(LARGE, 6)
    async with running_origin(fal=fal, **on(tmp_path, "one", truth)) as one:
        said = await own(one, "clip", data)
    fal.forget()
    faulty_bucket.log.clear()
    async with running_origin(fal=fal, **on(tmp_path, "two", truth)) as two:
        response, body = await two.get("clip", {"Range": field})
        assert response.status == 206
        start = 10 * MIB if "-100000" not in field else LARGE - 100_000
        assert body == data[start : start + 100_000]
        assert response.headers["ETag"] == said["ETag"]
        ranges = {seen.headers.get("range") for seen in faulty_bucket.seen("GetObject")}
        assert ranges >= {f"bytes={start}-" if "=-" in field else field}
        await wait_for(lambda: has(two, "clip"))  # and the range has filled the disk with the whole
        _, body = await two.get("clip")
        assert body == data
    assert fal.gets() == []


async def has(origin: Origin, request_id: str) -> bool:
    return (
        await is_cached(origin.app.disk, request_id) and origin.app.flights.get(request_id) is None
    )


async def test_a_bucket_fill_whose_bytes_are_not_those_that_were_stored_is_not_served_as_whole(
    fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, tmp_path: Path
) -> None:
    """Peers 20 (pulpcore#5012): a corrupt copy is never answered as if it were the clip."""
    data = make_clip(500_000, 7)
    async with running_origin(fal=fal, **on(tmp_path, "one", truth)) as one:
        await own(one, "clip", data)
    head = truth.head("clip")
    assert head is not None
    wrong = data[:-1] + bytes([data[-1] ^ 1])
    truth.put("clip", wrong, Metadata=head["Metadata"])
    async with running_origin(fal=fal, **on(tmp_path, "two", truth)) as two:
        try:
            response, body = await two.get("clip")
        except aiohttp.ClientPayloadError:
            body = b""  # reset before the last byte
        else:
            assert response.status != 200 or body == data
        assert body != wrong
        assert not await is_cached(two.app.disk, "clip")


# -- what is not there ---


async def test_an_object_that_vanished_is_fetched_again_and_stored_again(
    fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, tmp_path: Path
) -> None:
    """Peers 22 (distribution#2367): metadata that outlives its blob is not an empty 200."""
    data = make_clip(600_000, 8)
    async with running_origin(fal=fal, **on(tmp_path, "one", truth)) as one:
        said = await own(one, "clip", data)
        truth.delete("clip")
    async with running_origin(fal=fal, **on(tmp_path, "two", truth)) as two:
        two.paths = one.paths
        response, body = await two.get("clip")
        assert body == data
        assert stable(response.headers) == said
        await wait_for(lambda: is_there(truth, "clip"))
        row = await two.stored("clip")
        assert row.etag == said["ETag"].strip('"')
        assert truth.body("clip") == data
        assert two.gets("clip") == 2
        assert two.app.metrics.bucket_missing._value.get() == 1


async def is_there(truth: Truth, request_id: str) -> bool:
    return truth.head(request_id) is not None


async def test_an_unknown_id_costs_one_look_and_is_404(
    make_origin: MakeOrigin, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    origin = await make_origin(bucket_url=truth.url)
    response, _ = await origin.get("nobody")
    assert response.status == 404
    assert response.headers["Cache-Control"] == "no-store"
    assert costs(faulty_bucket) == {"GetObject": 1}
    head = await origin.client.head(origin.url("nobody"))
    assert head.status == 404
    assert costs(faulty_bucket) == {"GetObject": 1, "HeadObject": 1}


async def test_invented_ids_cannot_run_up_a_bill(
    make_origin: MakeOrigin, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    origin = await make_origin(bucket_url=truth.url, bucket_lookup_rate=5)
    replies = await asyncio.gather(*(origin.get(f"invented-{n}") for n in range(60)))
    counted = Counter(response.status for response, _ in replies)
    assert set(counted) == {404, 503}
    assert counted[404] == len(faulty_bucket.seen("GetObject")) < 20
    assert all(r.headers["Retry-After"] for r, _ in replies if r.status == 503)


async def test_looking_for_unknown_ids_can_be_switched_off(
    make_origin: MakeOrigin, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    truth.put("theirs", make_clip(50_000, 9))
    origin = await make_origin(bucket_url=truth.url, bucket_lookup_unknown=False)
    response, _ = await origin.get("theirs")
    head = await origin.client.head(origin.url("theirs"))
    assert (response.status, head.status) == (404, 404)
    assert costs(faulty_bucket) == {}


# -- what somebody else put there ---


async def test_a_crowd_for_an_unknown_clip_of_the_bucket_takes_one_look_not_one_each(
    make_origin: MakeOrigin, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    data = make_clip(300_000, 10)
    truth.put("theirs", data)
    origin = await make_origin(bucket_url=truth.url, bucket_lookup_rate=1)
    replies = await asyncio.gather(*(origin.get("theirs") for _ in range(100)))
    assert [body == data for _, body in replies] == [True] * 100
    assert costs(faulty_bucket) == {"GetObject": 1}


async def test_a_strangers_object_is_adopted_with_one_etag_everywhere_and_for_good(
    fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, tmp_path: Path
) -> None:
    data = make_clip(400_000, 11)
    truth.put("theirs", data, ContentType="binary/octet-stream")
    said: list[dict[str, str]] = []

    async def look(origin: Origin) -> None:
        head = await origin.client.head(origin.url("theirs"))
        said.append(stable(head.headers))
        for _ in range(2):
            response, body = await origin.get("theirs")
            assert body == data
            said.append(stable(response.headers))
        part, body = await origin.get("theirs", {"Range": "bytes=100-199"})
        assert body == data[100:200]
        assert part.headers["ETag"] == said[0]["ETag"]

    for disk in ("one", "one", "two"):
        async with running_origin(fal=fal, **on(tmp_path, disk, truth)) as origin:
            await look(origin)
            row = await origin.stored("theirs")
            assert f'"{row.etag}"' == said[0]["ETag"]
    apart = on(tmp_path, "three", truth, database_url=f"sqlite:///{tmp_path}/other.sqlite")
    async with running_origin(fal=fal, **apart) as origin:
        await look(origin)  # another catalog comes to the same by itself
    assert all(fields == said[0] for fields in said)
    assert said[0]["Content-Type"] == "video/mp4"


async def test_one_id_never_has_etags_of_both_kinds(
    fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, tmp_path: Path
) -> None:
    """Peers 14 (tag#92): what is said of a clip and its bytes are always of one version."""
    data = make_clip(400_000, 12)
    truth.put("both", data)
    async with running_origin(fal=fal, **on(tmp_path, "one", truth)) as origin:
        adopted, _ = await origin.get("both")
        await origin.stored("both")
        await origin.clip("both", data)  # the application registers it only now
        origin.app.locator.refresh("both")
        after, body = await origin.get("both")
        assert body == data
        assert stable(after.headers) == stable(adopted.headers)
    for disk in ("one", "two"):
        async with running_origin(fal=fal, **on(tmp_path, disk, truth)) as origin:
            response, body = await origin.get("both")
            assert body == data
            assert stable(response.headers) == stable(adopted.headers)
    assert fal.gets() == []


async def test_a_registered_id_keeps_its_own_etag_over_a_strangers_equal_object(
    fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, tmp_path: Path
) -> None:
    data = make_clip(400_000, 13)
    truth.put("same", data)
    async with running_origin(fal=fal, **on(tmp_path, "one", truth)) as origin:
        said = await own(origin, "same", data)
        assert costs(faulty_bucket) == {"PutObject": 1, "HeadObject": 1}
        assert origin.leftovers() == []
    async with running_origin(fal=fal, **on(tmp_path, "two", truth)) as origin:
        response, body = await origin.get("same")
        assert body == data
        assert stable(response.headers) == said
        assert "detail=bucket" in response.headers["Cache-Status"]


async def test_a_strangers_other_bytes_are_left_alone_and_the_clip_is_not_fetched_for_every_view(
    fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, tmp_path: Path
) -> None:
    data, theirs = make_clip(400_000, 14), make_clip(300_000, 15)
    truth.put("taken", theirs)
    async with running_origin(fal=fal, **on(tmp_path, "one", truth)) as origin:
        await origin.clip("taken", data)
        first, body = await origin.get("taken")
        assert body == data
        await wait_for(lambda: has(origin, "taken"))
        again, body = await origin.get("taken")
        assert body == data
        assert stable(again.headers) == stable(first.headers)
        assert origin.gets("taken") == 1
        row = await origin.row("taken")
        assert row is not None
        assert row.status == "available"
        assert origin.leftovers() == []
    assert truth.body("taken") == theirs


async def test_a_repointed_id_replaces_its_own_former_clip_in_the_bucket(
    fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth, tmp_path: Path
) -> None:
    old, new = make_clip(400_000, 16), make_clip(500_000, 17)
    async with running_origin(fal=fal, **on(tmp_path, "one", truth)) as origin:
        said = await own(origin, "moved", old)
        fal.add("/files/new/moved.mp4", new)
        await origin.app.generations.register(
            [Registration(request_id="moved", fal_url=fal.url("/files/new/moved.mp4"))]
        )
        await origin.app.locator.forget("moved")
        response, body = await origin.get("moved")
        assert body == new
        assert response.headers["ETag"] != said["ETag"]
        await origin.stored("moved")
        assert truth.body("moved") == new
        assert origin.leftovers() == []
