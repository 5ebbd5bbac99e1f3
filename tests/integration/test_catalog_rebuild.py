"""A catalog that was lost comes back from the bucket alone, and no viewer can tell."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.rebuild import Rebuild, Restored
from proxy.delivery.rebuild import HEADS, Progress, rebuild
from proxy.errors import BucketUnavailable
from proxy.records import Generation, Registration, Status
from proxy.storage import keys
from proxy.storage.bucket import ObjectInfo
from proxy.storage.opening import open_bucket
from tests.fakes.bucket import FaultyBucket
from tests.fakes.fal import FakeFal, make_clip
from tests.fixtures.origin import Origin, running_origin, settings_for
from tests.fixtures.truth import Truth
from tests.integration.test_command_line import firstview

pytestmark = pytest.mark.timeout(180)  # each command is a process, which has to begin first

SAME = (
    "request_id",
    "status",
    "content_length",
    "content_type",
    "etag",
    "last_modified",
    "sha256",
    "model",
    "prompt_hash",
    "cdn_url",
)
VARYING = {"date", "x-request-id", "server-timing", "cache-status"}


def address(request_id: str) -> str:
    return f"http://localhost:8080/videos/{request_id}.mp4"


def what_lasts(row: Generation | None) -> dict[str, Any]:
    assert row is not None
    return {name: getattr(row, name) for name in SAME}


def steady(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in VARYING}


async def store(origin: Origin) -> dict[str, bytes]:
    """Let some clips be viewed and stored: with and without a model, a prompt, a completion."""
    clips = {f"clip-{n}": make_clip(40_000 + n, n) for n in range(4)}
    known: list[dict[str, Any]] = [
        {"model": "fal-ai/veo3", "prompt": "a cat"},
        {"model": "fal-ai/kling-video/v3/pro"},
        {"completed_at": datetime(2026, 10, 1, 12, 30, 7, 5, tzinfo=UTC)},
        {},
    ]
    for (request_id, data), more in zip(clips.items(), known, strict=True):
        await origin.clip(request_id, data, **more)
        _, body = await origin.get(request_id)
        assert body == data
        await origin.stored(request_id)
    return clips


async def look(origin: Origin, ids: list[str]) -> dict[str, tuple[bytes, dict[str, str]]]:
    seen = {}
    for request_id in ids:
        response, body = await origin.get(request_id)
        assert response.status == 200
        seen[request_id] = (body, steady(response.headers))
    return seen


async def rows_of(origin: Origin, ids: list[str]) -> dict[str, dict[str, Any]]:
    return {request_id: what_lasts(await origin.row(request_id)) for request_id in ids}


async def run(
    bucket_url: str, database: Path, *, dry_run: bool = False
) -> tuple[Progress, Generations, AsyncExitStack]:
    """Rebuild into a catalog that the caller closes by closing what is returned last."""
    stack = AsyncExitStack()
    bucket = await open_bucket(bucket_url, settings_for(database.parent))
    stack.push_async_callback(bucket.close)
    catalog = await open_catalog(f"sqlite:///{database}")
    stack.push_async_callback(catalog.close)
    rows, progress = Rebuild(catalog, clip_url=address), Progress()
    await rebuild(bucket, rows.preview if dry_run else rows.write, progress, moved=lambda: None)
    return progress, Generations(catalog, clip_url=address), stack


# --- nothing is lost ----------------------------------------------------------------------------


async def test_every_clip_plays_as_before_from_a_catalog_made_of_the_bucket_alone(
    fal: FakeFal, bucket_url: str, tmp_path: Path
) -> None:
    def at(disk: str) -> dict[str, Any]:
        return {"data_dir": tmp_path / disk, "bucket_url": bucket_url, "worker": False}

    async with running_origin(fal=fal, **at("one")) as origin:
        ids = list(await store(origin))
        before, rows = await look(origin, ids), await rows_of(origin, ids)
    fal.forget()
    database = tmp_path / "two" / "catalog.sqlite"
    progress, _, stack = await run(bucket_url, database)
    await stack.aclose()
    assert progress.outcomes == {Restored.CREATED: 4}
    assert progress.skipped == 0
    async with running_origin(fal=fal, **at("two")) as origin:
        assert await rows_of(origin, ids) == rows
        assert await look(origin, ids) == before
        assert await rows_of(origin, ids) == rows
        kept = await origin.row("clip-0")
        assert kept is not None
        assert kept.mirrored_at is not None
        assert kept.prompt_hash is not None
    assert fal.gets() == []


async def test_a_row_is_mirrored_since_the_bucket_got_its_clip(
    bucket_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    await put_stranger(bucket_url, "theirs", make_clip(30_000, 1), request, tmp_path)
    bucket = await open_bucket(bucket_url, settings_for(tmp_path))
    info = await bucket.head(keys.clip_key("theirs"))
    await bucket.close()
    assert info is not None
    _, generations, stack = await run(bucket_url, tmp_path / "new.sqlite")
    row = await generations.get("theirs")
    assert row is not None
    assert (row.mirrored_at, row.created_at) == (info.last_modified, info.last_modified)
    await stack.aclose()


async def test_a_strangers_object_is_adopted_as_a_view_adopts_it(
    fal: FakeFal, bucket_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = make_clip(50_000, 3)
    await put_stranger(bucket_url, "theirs", data, request, tmp_path)
    async with running_origin(fal=fal, data_dir=tmp_path / "one", bucket_url=bucket_url) as origin:
        response, body = await origin.get("theirs")
        assert body == data
        viewed = what_lasts(await origin.stored("theirs"))
        said = steady(response.headers)
    _, generations, stack = await run(bucket_url, tmp_path / "two" / "catalog.sqlite")
    rebuilt = what_lasts(await generations.get("theirs"))
    await stack.aclose()
    # Only who has read all of a clip knows its digest.
    assert rebuilt | {"sha256": None} == viewed | {"sha256": None}
    async with running_origin(fal=fal, data_dir=tmp_path / "two", bucket_url=bucket_url) as origin:
        response, body = await origin.get("theirs")
        assert (body, steady(response.headers)) == (data, said)


async def put_stranger(
    bucket_url: str,
    request_id: str,
    data: bytes,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    if bucket_url.startswith("s3:"):
        truth: Truth = request.getfixturevalue("truth")
        truth.put(request_id, data)
        return
    file = tmp_path / "bucket" / keys.clip_key(request_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


# --- what the catalog knows already -------------------------------------------------------------


async def test_rows_keep_what_they_know_and_become_stored_if_they_mean_the_object(
    fal: FakeFal, bucket_url: str, tmp_path: Path
) -> None:
    async with running_origin(
        fal=fal, data_dir=tmp_path / "one", bucket_url=bucket_url, worker=False
    ) as origin:
        await store(origin)
        urls = {name: fal.url(path) for name, path in origin.paths.items()}
    database = tmp_path / "two.sqlite"
    catalog = await open_catalog(f"sqlite:///{database}")
    before = Generations(catalog, clip_url=address, keep_prompts=True)
    await before.register(
        [
            Registration(request_id="clip-0", fal_url=urls["clip-0"], prompt="a dog", width=7),
            Registration(request_id="clip-1", fal_url=fal.url("/files/b/other/other.mp4")),
            Registration(request_id="clip-2", model="kept"),
            Registration(request_id="not-there", fal_url=fal.url("/files/b/x/x.mp4")),
        ]
    )
    await before.mark_failed("clip-3", "said too early")
    other, away = await before.get("clip-1"), await before.get("not-there")
    first = await before.get("clip-0")
    await catalog.close()

    progress, after, stack = await run(bucket_url, database)
    assert progress.outcomes == {Restored.STORED: 3}
    assert [(s.key, s.reason) for s in progress.first_skipped] == [
        ("videos/clip-1.mp4", "the catalog means another clip")
    ]
    assert await after.get("clip-1") == other
    assert await after.get("not-there") == away
    row = await after.get("clip-0")
    assert row is not None
    assert first is not None
    assert row.status is Status.STORED
    kept = {"fal_url", "prompt", "prompt_hash", "width", "created_at", "completed_at"}
    assert {name: getattr(row, name) for name in kept} == {
        name: getattr(first, name) for name in kept
    }
    learned = await after.get("clip-2")
    failed = await after.get("clip-3")
    assert learned is not None
    assert failed is not None
    assert (learned.status, learned.model) == (Status.STORED, "kept")
    assert (failed.status, failed.error) == (Status.STORED, None)
    await stack.aclose()

    again, generations, stack = await run(bucket_url, database)
    assert again.outcomes == {Restored.UNCHANGED: 3}
    assert await generations.get("clip-0") == row
    await stack.aclose()


async def test_what_is_no_clip_is_said_and_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "bucket" / "videos"
    (folder / "deep").mkdir(parents=True)
    for name in ("good.mp4", "deep/good.mp4", "notes.txt", "-bad.mp4", "a b.mp4"):
        (folder / name).write_bytes(make_clip(20_000, 1))
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "begun.mp4").write_bytes(make_clip(20_000, 1)[:15_000])
    (folder / "text.mp4").write_bytes(b"<html>" * 100)
    progress, generations, stack = await run((tmp_path / "bucket").as_uri(), tmp_path / "c.sqlite")
    await stack.aclose()
    assert progress.objects == 8
    assert progress.outcomes == {Restored.CREATED: 1}
    assert Counter(skipped.reason for skipped in progress.first_skipped) == {
        "this is not the name of a clip": 4,
        "it is empty": 1,
        "it is no mp4, or only the beginning of one": 2,
    }
    del generations


async def test_a_dry_run_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "bucket" / "videos"
    folder.mkdir(parents=True)
    (folder / "a.mp4").write_bytes(make_clip(20_000, 1))
    progress, generations, stack = await run(
        (tmp_path / "bucket").as_uri(), tmp_path / "c.sqlite", dry_run=True
    )
    assert progress.outcomes == {Restored.CREATED: 1}
    assert await generations.get("a") is None
    await stack.aclose()


# --- many, and a bucket that fails --------------------------------------------------------------


class Listed:
    """A bucket of any size that only says what it holds, and fails when it is told to."""

    name = "s3://many"

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.count = count
        self.fails_at = fails_at
        self.asked = self.now = self.most = 0

    def info(self, number: int) -> ObjectInfo:
        return ObjectInfo(
            key=keys.clip_key(f"r{number:06}"),
            size=1000 + number,
            etag=f"e{number}",
            last_modified=datetime(2026, 11, 1, tzinfo=UTC),
            metadata={keys.META_ETAG: f"e{number}"},
        )

    async def list(self, prefix: str = "") -> Any:
        assert prefix == keys.VIDEOS_PREFIX
        for number in range(self.count):
            yield self.info(number)

    async def head(self, key: str) -> ObjectInfo:
        self.asked += 1
        fails = self.asked == self.fails_at
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        self.now -= 1
        if fails:
            raise BucketUnavailable
        return self.info(int(key[8:14]))


async def test_a_bucket_that_fails_half_way_is_gone_on_with_by_running_again(
    tmp_path: Path,
) -> None:
    catalog = await open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite")
    rows = Rebuild(catalog, clip_url=address)
    progress, bucket = Progress(), Listed(1800, fails_at=1234)
    with pytest.raises(BucketUnavailable):
        await rebuild(bucket, rows.write, progress, moved=lambda: None)  # type: ignore[arg-type]
    assert progress.outcomes == {Restored.CREATED: 1000}
    again = Progress()
    await rebuild(Listed(1800), rows.write, again, moved=lambda: None)  # type: ignore[arg-type]
    assert again.outcomes == {Restored.UNCHANGED: 1000, Restored.CREATED: 800}
    assert 1 < bucket.most <= HEADS
    await catalog.close()


async def test_objects_of_ours_are_asked_one_head_each(
    faulty_bucket: FaultyBucket, truth: Truth, tmp_path: Path
) -> None:
    for number in range(5):
        ours = {keys.META_ETAG: f"{number:032x}"}
        truth.put(f"c{number}", make_clip(20_000, number), Metadata=ours)
    _, _, stack = await run(truth.url, tmp_path / "c.sqlite")
    await stack.aclose()
    assert Counter(seen.operation for seen in faulty_bucket.log) == {
        "ListObjectsV2": 1,
        "HeadObject": 5,
    }


# --- the command --------------------------------------------------------------------------------


def test_the_command_restores_and_reports(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "bucket" / "videos"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"c{number}.mp4").write_bytes(make_clip(20_000, number))
    dry = firstview(tmp_path, "catalog", "rebuild", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert dry.stdout.startswith("would be: 3 created, 0 now stored, 0 unchanged, 0 skipped (3 ob")
    done = firstview(tmp_path, "catalog", "rebuild")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 created, 0 now stored, 0 unchanged, 0 skipped (3 objects, 60")
    assert done.stderr == "", "no progress bar where nobody watches"
    (folder / "notes.txt").write_text("x")
    again = firstview(tmp_path, "catalog", "rebuild", "--json")
    assert again.returncode == 1
    report = json.loads(again.stdout)
    assert report.pop("seconds") >= 0
    assert report == {
        "dry_run": False,
        "objects": 4,
        "bytes": 60_001,
        "created": 0,
        "stored": 0,
        "unchanged": 3,
        "skipped": 1,
        "first_skipped": [{"key": "videos/notes.txt", "reason": "this is not the name of a clip"}],
    }
    assert "Traceback" not in again.stderr
