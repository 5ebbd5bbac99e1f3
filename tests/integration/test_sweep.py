"""What the bucket lost or damaged is found and mended; what uploads left behind goes.

The whole app, with its worker, against a directory and against a real S3 server.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.catalog.leases import Leases
from proxy.catalog.sweeping import Sweeping
from proxy.errors import BucketRefused
from proxy.jobs import sweep as sweep_module
from proxy.jobs.check import Checker
from proxy.jobs.sweep import Sweeper
from proxy.jobs.turns import Turns
from proxy.storage import keys
from tests.fakes.bucket import Fault, FaultyBucket
from tests.fakes.fal import FakeFal, make_clip
from tests.fixtures.cache import is_cached
from tests.fixtures.origin import Origin, running_origin, wait_for
from tests.fixtures.truth import Truth

MIB = 1024 * 1024
IN_PARTS: dict[str, Any] = {"single_put_max": "1MiB", "part_size": "5MiB"}
LARGE = 6 * MIB
QUIET: dict[str, Any] = {"worker": True, "check_rate": 0, "jobs_poll": "50ms", "sweep_every": "1d"}
"""The tests check and sweep for themselves."""


class Stage:
    """A bucket, and what it really holds."""

    def __init__(self, tmp_path: Path, fal: FakeFal, truth: Truth | None) -> None:
        self.tmp_path, self.fal, self.truth = tmp_path, fal, truth
        self.folder = tmp_path / "bucket"

    def on(self, disk: str, **changes: Any) -> Any:
        """Run an instance with a disk of its own, and the catalog that all of them share."""
        settings = {
            "bucket_url": self.truth.url if self.truth else self.folder.as_uri(),
            "database_url": f"sqlite:///{self.tmp_path}/shared.sqlite",
            **QUIET,
            **changes,
        }
        return running_origin(self.tmp_path / disk, self.fal, **settings)

    def body(self, name: str) -> bytes | None:
        if self.truth is not None:
            return self.truth.body(name)
        path = self.folder / keys.clip_key(name)
        return path.read_bytes() if path.exists() else None

    def damage(self, name: str, body: bytes | None) -> None:
        """Take an object of ours away, or give it other bytes, as no part of firstview does."""
        if self.truth is None:
            path = self.folder / keys.clip_key(name)
            path.unlink() if body is None else path.write_bytes(body)
        elif body is None:
            self.truth.delete(name)
        else:
            head = self.truth.head(name)
            assert head is not None
            self.truth.put(name, body, Metadata=head["Metadata"])


@pytest.fixture(params=["directory", "s3"])
def stage(request: pytest.FixtureRequest, tmp_path: Path, fal: FakeFal) -> Stage:
    if request.param == "directory":
        return Stage(tmp_path, fal, None)
    request.getfixturevalue("aws_environment")
    return Stage(tmp_path, fal, request.getfixturevalue("truth"))


def checker(origin: Origin) -> Checker:
    """Make a quick one of this instance's parts."""
    app = origin.app
    return Checker(
        Sweeping(app.catalog, expires_after=None),
        app.generations,
        app.bucket,
        Turns(Leases(app.catalog), owner="test", length=60),
        app.settings.model_copy(update={"check_rate": 60_000}),
        clock=app.clock,
        metrics=app.metrics,
        doubt=app.locator.doubt,
    )


async def make_due(origin: Origin) -> None:
    """Let the check go on now that was put off."""
    leases = Leases(origin.app.catalog)
    lease = await leases.take("check", "test", timedelta(seconds=60), due_only=False)
    assert lease is not None
    assert await leases.finish(lease, due_in=timedelta(0), position=lease.position)


async def own(origin: Origin, name: str, data: bytes) -> None:
    await origin.clip(name, data)
    _, body = await origin.get(name)
    assert body == data
    await origin.stored(name)


async def mended(stage: Stage, origin: Origin, name: str, data: bytes) -> None:
    async def look() -> bool:
        return stage.body(name) == data

    await wait_for(look)
    await origin.stored(name)
    origin.app.locator.refresh(name)
    _, body = await origin.get(name)
    assert body == data


# --- what the bucket lost -----------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["gone", "cut short", "longer"])
@pytest.mark.parametrize("size", [400_000, LARGE])
@pytest.mark.blocking  # the test itself looks at files
async def test_what_the_check_finds_is_mirrored_again_byte_by_byte(
    stage: Stage, damage: str, size: int
) -> None:
    data, other = make_clip(size, 1), make_clip(300_000, 2)
    wrong = {"gone": None, "cut short": data[: size // 2], "longer": data + b"more"}[damage]
    async with stage.on("one", **IN_PARTS) as origin:
        await own(origin, "clip", data)
        await own(origin, "other", other)
        stage.damage("clip", wrong)
        stage.fal.forget()
        await checker(origin).check()
        await mended(stage, origin, "clip", data)
        if origin.app.bucket.is_local:  # nothing else on this machine has the clip
            assert origin.gets("clip") >= 1
        else:  # the copy in the disk cache is nearer than its source
            assert origin.gets("clip") == 0
        assert origin.gets("other") == 0
        assert stage.body("other") == other
        metrics = await (await origin.client.get(origin.admin("/metrics"))).text()
        found = "missing" if wrong is None else "wrong-size"
        assert f'firstview_bucket_checked_total{{result="{found}"}} 1.0' in metrics
        assert 'firstview_bucket_checked_total{result="ok"} 1.0' in metrics
        assert origin.leftovers() == []


@pytest.mark.blocking  # the test itself looks at files
async def test_a_file_that_was_damaged_in_place_is_mended(tmp_path: Path, fal: FakeFal) -> None:
    stage, data = Stage(tmp_path, fal, None), make_clip(400_000, 3)
    async with stage.on("one") as origin:
        await own(origin, "clip", data)
        stage.damage("clip", data[:-1] + bytes([data[-1] ^ 1]))
        await checker(origin).check()
        await mended(stage, origin, "clip", data)


@pytest.mark.parametrize("size", [400_000, LARGE])
@pytest.mark.blocking  # the test itself looks at files
async def test_an_object_that_was_cut_short_is_never_served_as_the_clip(
    stage: Stage, size: int
) -> None:
    data = make_clip(size, 4)
    async with stage.on("one", **IN_PARTS) as origin:
        await own(origin, "clip", data)
    stage.damage("clip", data[: size // 2])
    async with stage.on("two", worker=False, **IN_PARTS) as origin:
        response, body = await origin.get("clip")
        assert response.status == 200
        assert body == data
        await mended(stage, origin, "clip", data)


async def test_wrong_bytes_of_the_right_length_are_mended_once_a_fill_has_met_them(
    tmp_path: Path, fal: FakeFal, aws_environment: None, truth: Truth
) -> None:
    stage, data = Stage(tmp_path, fal, truth), make_clip(400_000, 5)
    async with stage.on("one") as origin:
        await own(origin, "clip", data)
    stage.damage("clip", data[:-1] + bytes([data[-1] ^ 1]))
    async with stage.on("two") as origin:
        try:
            response, body = await origin.get("clip")
        except aiohttp.ClientPayloadError:
            pass  # reset before the last byte
        else:
            assert response.status != 200 or body == data
        await mended(stage, origin, "clip", data)


async def test_a_strangers_bytes_are_left_alone_whatever_the_check_says(
    tmp_path: Path, fal: FakeFal, aws_environment: None, truth: Truth
) -> None:
    stage, data, theirs = Stage(tmp_path, fal, truth), make_clip(400_000, 6), make_clip(9000, 7)
    async with stage.on("one", worker=False) as origin:
        await own(origin, "clip", data)
        truth.put("clip", theirs)
        await checker(origin).check()
        row = await origin.row("clip")
        assert row is not None
        assert row.status == "available"
    async with stage.on("two", worker=False) as origin:
        _, body = await origin.get("clip")
        assert body == data

        async def given_up() -> bool:
            return await is_cached(origin.app.disk, "clip") and "clip" not in origin.app.ownership

        await wait_for(given_up)
    assert truth.body("clip") == theirs


# --- what looks as if the bucket had lost it ----------------------------------------------------


async def test_credentials_that_ran_out_make_no_clip_missing(
    tmp_path: Path, fal: FakeFal, faulty_bucket: FaultyBucket, truth: Truth
) -> None:
    stage = Stage(tmp_path, fal, truth)
    async with stage.on("one", bucket_attempts=1, bucket_timeout="400ms") as origin:
        await own(origin, "clip", make_clip(300_000, 8))
        for how in ({"status": 403, "code": "AccessDenied"}, {"status": 500}, {"delay": 3600.0}):
            faulty_bucket.faults.append(Fault(operation="*", times=1_000_000, **how))
            with pytest.raises(Exception, match="bucket"):
                await checker(origin).check()
            faulty_bucket.faults.clear()
            await make_due(origin)
        row = await origin.row("clip")
        assert row is not None
        assert row.status == "stored"


async def test_a_bucket_that_is_gone_makes_no_clip_missing(
    tmp_path: Path, fal: FakeFal, aws_environment: None, truth: Truth
) -> None:
    stage = Stage(tmp_path, fal, truth)
    async with stage.on("one", worker=False) as origin:
        await own(origin, "clip", make_clip(300_000, 9))
        truth.delete("clip")
        truth.client.delete_bucket(Bucket=truth.name)
        try:
            with pytest.raises(BucketRefused):
                await checker(origin).check()
            row = await origin.row("clip")
            assert row is not None
            assert row.status == "stored"
        finally:
            truth.client.create_bucket(Bucket=truth.name)


# --- what uploads left behind -------------------------------------------------------------------


async def test_uploads_that_nobody_ends_are_aborted_at_every_sweep_once_they_are_old(
    tmp_path: Path,
    fal: FakeFal,
    faulty_bucket: FaultyBucket,
    truth: Truth,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(tmp_path, fal, truth)
    async with stage.on("one", worker=False) as origin:
        app = origin.app
        sweeper = Sweeper(
            Sweeping(app.catalog, expires_after=None),
            app.bucket,
            Turns(Leases(app.catalog), owner="test", length=60),
            app.settings,
            clock=app.clock,
            metrics=app.metrics,
        )

        def begin(key: str) -> None:
            truth.client.create_multipart_upload(Bucket=truth.name, Key=key)

        begin(keys.clip_key("left"))
        begin("elsewhere/left.mp4")
        report = await sweeper.sweep(force=True)
        assert report is not None
        assert report.aborted_uploads == 0
        monkeypatch.setattr(sweep_module, "ORPHANED_AFTER", timedelta(0))
        for _ in range(2):
            report = await sweeper.sweep(force=True)
            assert report is not None
            assert report.aborted_uploads == 1
            assert truth.uploads() == ["elsewhere/left.mp4"]
            begin(keys.clip_key("left"))  # as a store may, that forgot that it was asked
        faulty_bucket.faults.append(Fault(operation="*", times=1_000_000, status=403))
        report = await sweeper.sweep(force=True)
        assert report is not None
        assert report.aborted_uploads is None
        faulty_bucket.faults.clear()
