"""The main job: a cold clip plays on first view, and is owned afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from proxy.delivery.near import Near
from proxy.records import Registration, Status
from proxy.storage import keys
from tests.fakes.fal import Behaviour, Clip, FakeFal, make_clip
from tests.fixtures.looking import in_bucket, metric, objects, path_of, viewers
from tests.fixtures.origin import MakeOrigin, Origin, running_origin
from tests.fixtures.raw import RawClient, raw_client

MIB = 1024 * 1024


async def test_a_cold_clip_plays_before_its_source_has_sent_all_of_it(origin: Origin) -> None:
    data, rest = make_clip(4 * MIB, 1), asyncio.Event()
    await origin.clip("cold", data, Behaviour(stall_at=MIB, stall_until=rest))
    async with raw_client(origin.app.public_port) as viewer:
        await viewer.ask(path_of("cold"))
        head = await viewer.head()
        first = await viewer.read(MIB)
        [request] = origin.fal.gets(origin.paths["cold"])
        assert (head.status, head.length) == (200, len(data))
        assert request.sent == MIB
        rest.set()
        assert first + await viewer.rest() == data


async def test_what_was_viewed_once_is_owned_with_its_type_and_metadata(origin: Origin) -> None:
    data = make_clip(MIB, 2)
    await origin.clip("owned", data, Behaviour(content_type="application/octet-stream"), model="m")
    response, body = await origin.get("owned")
    row = await origin.stored("owned")
    info = await origin.app.bucket.head(keys.clip_key("owned"))
    assert body == await in_bucket(origin, "owned") == data
    assert info is not None
    assert (info.size, info.content_type) == (len(data), "video/mp4")
    digest = hashlib.sha256(data).hexdigest()
    etag = response.headers["ETag"].strip('"')
    assert info.metadata[keys.META_REQUEST_ID] == "owned"
    assert info.metadata[keys.META_ETAG] == etag
    assert info.metadata[keys.META_SHA256] == digest
    assert info.metadata[keys.META_MODEL] == "m"
    assert (row.status, row.content_length, row.sha256, row.etag) == (
        "stored",
        len(data),
        digest,
        etag,
    )
    assert row.mirrored_at is not None
    assert row.last_modified is not None


async def test_the_second_view_does_not_touch_upstream(origin: Origin) -> None:
    data = make_clip(MIB, 2)
    await origin.clip("twice", data)
    _, first = await origin.get("twice")
    row = await origin.stored("twice")
    response, second = await origin.get("twice")
    assert first == second == data
    assert origin.gets("twice") == 1
    assert response.headers["Cache-Status"] == "firstview; hit; detail=bucket"
    assert row.content_length == len(data)
    assert origin.leftovers() == []


@pytest.mark.parametrize("status", [Status.STORED, Status.AVAILABLE])
async def test_a_clip_that_arrives_while_the_catalog_is_asked_is_not_fetched_again(
    origin: Origin, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its places were glanced at a moment too early, when it was nowhere yet."""
    data = make_clip(MIB, 2)
    await origin.clip("late", data)
    await origin.get("late")
    row = await origin.stored("late")
    monkeypatch.setattr(Near, "seems_here", too_early(Near.seems_here))
    told = Mock(return_value=replace(row, status=status))
    monkeypatch.setattr(origin.app.generations, "at_hand", told)
    origin.app.locator.doubt("late")
    origin.app.locator.refresh("late")
    _, again = await origin.get("late")
    assert again == data
    assert origin.gets("late") == 1


def too_early(look: Callable[[Near, str], bool]) -> Callable[[Near, str], bool]:
    """Make the first look find nothing."""
    looked: list[str] = []

    def seems_here(near: Near, request_id: str) -> bool:
        looked.append(request_id)
        return len(looked) > 1 and look(near, request_id)

    return seems_here


async def test_500_viewers_of_one_cold_clip_cause_one_fetch_and_one_commit(origin: Origin) -> None:
    """Peers 21 (distribution#3428), 23 (proxpi#68), 24 (bazel-remote#318)."""
    data, rest = make_clip(300_000, 3), asyncio.Event()
    await origin.clip("crowd", data, Behaviour(delay=0.05, stall_at=100_000, stall_until=rest))

    watching = [asyncio.create_task(origin.get("crowd")) for _ in range(500)]
    await viewers(origin, 500, 30)
    rest.set()
    replies = await asyncio.gather(*watching)
    assert {response.status for response, _ in replies} == {200}
    assert all(body == data for _, body in replies)
    collapsed = [r for r, _ in replies if "collapsed" in r.headers["Cache-Status"]]
    assert len(collapsed) == 499
    await origin.stored("crowd")
    assert origin.gets("crowd") == 1
    assert metric(origin, "firstview_stored_total") == 1
    assert await objects(origin) == [keys.clip_key("crowd")]
    assert origin.leftovers() == []


async def test_a_late_joiner_gets_its_first_bytes_while_the_fill_goes_on(origin: Origin) -> None:
    """Peers 30 (docker-registry-proxy#31): joining has no age after which it is off."""
    data, rest = make_clip(2 * MIB, 4), asyncio.Event()
    await origin.clip("late", data, Behaviour(stall_at=MIB, stall_until=rest))
    async with raw_client(origin.app.public_port) as early:
        await early.ask(path_of("late"))
        await early.head()
        begun = await early.read(MIB)
        async with raw_client(origin.app.public_port) as late:
            await late.ask(path_of("late"))
            head = await late.head()
            first = await late.read(MIB)
            assert not rest.is_set()
            assert head.fields["cache-status"].endswith("collapsed; detail=flight")
            rest.set()
            assert first + await late.read(MIB) == data
        assert begun + await early.read(MIB) == data
    await origin.stored("late")
    assert origin.gets("late") == 1


async def test_a_slow_viewer_and_a_fast_one_do_not_wait_for_each_other(origin: Origin) -> None:
    """Peers 41 (containerregistry#196): a slow reader is never cut short."""
    data = make_clip(16 * MIB + 4096, 5)
    await origin.clip("pace", data)
    async with raw_client(origin.app.public_port, buffer=16 * 1024) as slow:
        await slow.ask(path_of("pace"))
        await slow.head()
        enough = asyncio.Event()
        reader = asyncio.create_task(_read_slowly(slow, 20_000, until=enough))
        _, body = await origin.get("pace")
        await origin.stored("pace")
        [request] = origin.fal.gets(origin.paths["pace"])
        assert body == data
        assert request.finished
        assert slow.received < len(data) // 4
        enough.set()
        taken = await reader
        assert taken + await slow.rest() == data
    assert origin.gets("pace") == 1


async def _read_slowly(viewer: RawClient, rate: int, *, until: asyncio.Event) -> bytes:
    taken = b""
    while not until.is_set():
        taken += await viewer.read(rate // 20)
        await asyncio.sleep(1 / 20)
    return taken


async def test_a_fill_outlives_all_of_its_viewers(origin: Origin) -> None:
    """Peers 10 (tag#64): a client with a short deadline does not make the clip a miss for ever."""
    data, rest = make_clip(4 * MIB, 6), asyncio.Event()
    await origin.clip("left", data, Behaviour(stall_at=len(data) // 10, stall_until=rest))
    for _ in range(3):
        async with raw_client(origin.app.public_port) as viewer:
            await viewer.ask(path_of("left"))
            await viewer.head()
            await viewer.read(len(data) // 10)

    await viewers(origin, 0)
    rest.set()
    await origin.stored("left")
    assert await in_bucket(origin, "left") == data
    assert origin.gets("left") == 1
    assert origin.leftovers() == []


# -- far ranges ---


async def test_a_far_range_of_a_cold_clip_takes_one_round_trip(make_origin: MakeOrigin) -> None:
    """Peers 28 (nginx-s3-gateway#188): a far range does not wait for what lies before it."""
    origin = await make_origin(drain_timeout="50ms")
    clip, trip = Clip(200 * MIB, 7), 0.5
    await origin.clip("far", clip, Behaviour(delay=trip, rate=5 * MIB))
    start = 180 * MIB
    async with raw_client(origin.app.public_port) as viewer:
        began = time.monotonic()
        await viewer.ask(path_of("far"), {"Range": f"bytes={start}-"})
        head = await viewer.head()
        first = await viewer.read(1)
        took = time.monotonic() - began
        print(f"first byte of a far range after {took:.3f} s, one round trip is {trip} s")
        assert head.status == 206
        assert head.fields["content-range"] == f"bytes {start}-{len(clip) - 1}/{len(clip)}"
        assert first + await viewer.read(MIB - 1) == clip.read(start, start + MIB)
    requests = origin.fal.requests(origin.paths["far"])
    whole, part = sorted(requests, key=lambda each: each.range or "")
    assert [(each.method, each.range) for each in (whole, part)] == [
        ("GET", None),
        ("GET", f"bytes={start}-"),
    ]
    # Nothing was waited for: it was asked for before the other request was answered.
    assert part.received_at < (whole.first_byte_at or math.inf)


@pytest.mark.parametrize("field", ["bytes=23592960-", "bytes=-1048576", "bytes=20000000-20099999"])
async def test_a_clip_of_which_only_a_far_range_was_asked_for_becomes_whole(
    origin: Origin, field: str
) -> None:
    """Peers 18 (pulpcore#3060): range requests fill; 36 (souin#667): with the whole, not a part."""
    clip = Clip(24 * MIB, 8)
    await origin.clip("part", clip)
    response, body = await origin.get("part", {"Range": field})
    first, _, last = response.headers["Content-Range"][6:].partition("/")[0].partition("-")
    assert response.status == 206
    assert body == clip.read(int(first), int(last) + 1)
    row = await origin.stored("part")
    assert (row.content_length, row.sha256) == (len(clip), clip.sha256())
    assert await in_bucket(origin, "part") == clip.read(0, len(clip))
    assert origin.leftovers() == []


async def test_a_source_that_ignores_ranges_is_waited_for_and_not_asked_again(
    make_origin: MakeOrigin,
) -> None:
    origin = await make_origin(seek_ahead="64KiB")
    data, how = make_clip(4 * MIB, 9), Behaviour(ranges="ignore")
    for name in ("first", "second"):
        await origin.clip(name, data, how)
        response, body = await origin.get(name, {"Range": f"bytes={3 * MIB}-"})
        assert (response.status, body) == (206, data[3 * MIB :])
        await origin.stored(name)
    assert origin.gets("first") <= 2
    assert [request.range for request in origin.fal.gets(origin.paths["second"])] == [None]


# -- what never changes ---

_STABLE = (
    "etag",
    "last-modified",
    "cache-control",
    "accept-ranges",
    "cache-tag",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "timing-allow-origin",
    "x-content-type-options",
    "cross-origin-resource-policy",
)


async def _faces(origin: Origin, request_id: str) -> tuple[list[dict[str, str]], set[str]]:
    """The stable fields of every kind of reply that a clip has, and where the clip came from."""
    faces, tiers = [], set()
    asks: list[tuple[str, str, dict[str, str]]] = [
        ("GET", "200", {}),
        ("HEAD", "200", {}),
        ("GET", "206", {"Range": "bytes=1000-1999"}),
        ("GET", "304", {"If-None-Match": "*"}),
    ]
    for method, status, headers in asks:
        async with raw_client(origin.app.public_port) as viewer:
            reply = await viewer.get(path_of(request_id), headers, method)
        assert str(reply.status) == status
        fields = {name: reply.head.fields[name] for name in _STABLE}
        if status == "206":
            fields["length"] = reply.head.fields["content-range"].partition("/")[2]
        elif status == "200":
            fields["length"] = reply.head.fields["content-length"]
        else:
            fields["length"] = str(600_000)
        faces.append(fields)
        if "cache-status" in reply.head.fields:
            tiers.add(reply.head.fields["cache-status"].rpartition("=")[2])
    return faces, tiers


@pytest.mark.parametrize("last_modified", ["Wed, 21 Oct 2026 07:28:00 GMT", None])
@pytest.mark.parametrize("bucket", ["directory", "s3"])
async def test_what_a_reply_says_of_a_clip_never_changes(
    fal: FakeFal,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    bucket: str,
    last_modified: str | None,
) -> None:
    """The same on a cold HEAD, a cold fill, every kind of hit, after a restart, and elsewhere."""
    changes: dict[str, str] = {}
    if bucket == "s3":
        request.getfixturevalue("aws_environment")
        changes["bucket_url"] = f"s3://{request.getfixturevalue('s3_bucket_name')}"
    data, rest = make_clip(600_000, 10), asyncio.Event()
    how = Behaviour(last_modified=last_modified, stall_at=300_000, stall_until=rest)
    seen: list[dict[str, str]] = []
    tiers: set[str] = set()

    async def look(origin: Origin) -> None:
        found, where = await _faces(origin, "same")
        seen.extend(found)
        tiers.update(where)

    async with running_origin(tmp_path / "one", fal, **changes) as origin:
        await origin.clip("same", data, how, model="fal-ai/Some Model")
        row = await origin.row("same")
        assert row is not None
        async with raw_client(origin.app.public_port) as viewer:
            cold = await viewer.get(path_of("same"), method="HEAD")
            assert origin.gets("same") == 0
            await viewer.ask(path_of("same"))
            filling = await viewer.head()
            await viewer.read(100_000)
            async with raw_client(origin.app.public_port) as other:
                warm = await other.get(path_of("same"), method="HEAD")
            rest.set()
            await viewer.rest()
        for head in (cold.head, filling, warm.head):
            fields = {name: head.fields[name] for name in _STABLE}
            seen.append(fields | {"length": head.fields["content-length"]})
        await origin.stored("same")
        await look(origin)
    async with running_origin(tmp_path / "one", fal, **changes) as restarted:
        await look(restarted)
    known = Registration(
        request_id="same",
        fal_url=row.fal_url,
        model=row.model,
        created_at=row.created_at,
    )
    if bucket == "s3":
        catalog = f"sqlite:///{tmp_path / 'one' / 'catalog.sqlite'}"
        async with running_origin(tmp_path / "two", fal, database_url=catalog, **changes) as beside:
            await look(beside)  # the same catalog and bucket, but another disk
    async with running_origin(tmp_path / "three", fal) as alone:
        await alone.app.generations.register([known])
        await look(alone)  # another disk, another bucket
    assert all(fields == seen[0] for fields in seen)
    assert seen[0]["length"] == str(len(data))
    assert tiers >= ({"disk", "bucket", "upstream"} if bucket == "s3" else {"bucket", "upstream"})
