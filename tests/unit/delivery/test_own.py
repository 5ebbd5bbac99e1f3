"""Ownership with everything around it made up: what no real store or disk can be made to do."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from proxy.clock import Clock
from proxy.delivery import kept as kept_module
from proxy.delivery.flights import Flight
from proxy.delivery.identity import etag_of
from proxy.delivery.own import Ownership
from proxy.delivery.owner import Filled
from proxy.delivery.sources import BucketSource, UpstreamSource
from proxy.delivery.spool import Spool
from proxy.errors import BucketUnavailable, CatalogUnavailable, DiskExhausted, ObjectConflict
from proxy.records import BodyHead, ClipFacts, Generation, Status
from proxy.storage.disk_cache import DiskCache
from proxy.storage.open_files import OpenFiles
from proxy.telemetry.metrics import Metrics
from tests.fixtures.cache import FACTS, disk_cache, is_cached
from tests.fixtures.origin import settings_for, wait_for

DATA = b"\0\0\0\x18ftypisom" + bytes(1000)
WHEN = datetime(2026, 10, 21, tzinfo=UTC)


@dataclass
class Upload:
    """An upload that does as its bucket says."""

    bucket: Bucket
    committed: int = 0
    aborted: int = 0

    async def advance(self, written: int) -> None:
        pass

    async def commit(self, sha256: str) -> None:
        self.committed += 1
        await self.bucket.gate.wait()
        if self.bucket.failures:
            raise self.bucket.failures.pop(0)
        self.bucket.stored.append(sha256)

    async def abort(self) -> bool:
        self.aborted += 1
        return self.bucket.aborts_hold


@dataclass
class Bucket:
    """A bucket that fails as told."""

    failures: list[Exception] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    aborts_hold: bool = True
    is_local: bool = False

    def upload(self, _new: object, _path: Path) -> Upload:
        self.uploads.append(Upload(self))
        return self.uploads[-1]

    async def head(self, _key: str) -> None:
        return None

    async def abort_uploads(self, *_: object) -> int:
        return 0


@dataclass
class Rows:
    """A catalog that fails as told."""

    row: Generation | None = None
    failures: list[Exception] = field(default_factory=list)
    means_it: bool = True
    marked: int = 0
    wanted: list[str] = field(default_factory=list)

    async def get(self, _request_id: str) -> Generation | None:
        return self.row

    async def note_source(self, *_: object, **__: object) -> None:
        pass

    async def note_missing(self, *_: object) -> None:
        pass

    async def note_refusal(self, *_: object) -> None:
        pass

    async def want_mirrored(self, request_ids: list[str]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.wanted += request_ids

    async def mark_stored(self, *_: object, **__: object) -> bool:
        if self.failures:
            raise self.failures.pop(0)
        self.marked += 1
        return self.means_it


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


class Stage:
    """An Ownership, and what is around it."""

    def __init__(self, folder: Path, threads: ThreadPoolExecutor) -> None:
        self.bucket, self.rows, self.metrics = Bucket(), Rows(), Metrics()
        self.bucket.gate.set()
        self.threads = threads
        self.spool_dir = folder / "data" / "spool"
        self.files = OpenFiles(10)
        self.disk: DiskCache
        self.settings = settings_for(
            folder / "data", bucket_retry_wait="20ms", bucket_retry_max_wait="40ms"
        )

    def ownership(self) -> Ownership:
        return Ownership(
            self.settings,
            bucket=cast("Any", self.bucket),
            rows=cast("Any", self.rows),
            disk=self.disk,
            files=self.files,
            spool_dir=self.spool_dir,
            executor=self.threads,
            clock=Clock(),
            metrics=self.metrics,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Ownership]:
        async with disk_cache(
            self.settings.data_dir, self.threads, max_bytes=100_000, on_evict=self.files.drop
        ) as self.disk:
            owner = self.ownership()
            await owner.load()
            retrying = asyncio.create_task(owner.run())
            try:
                yield owner
                assert not retrying.done()
            finally:
                retrying.cancel()
                await asyncio.gather(retrying, return_exceptions=True)
                await owner.close(1.0)
                self.files.close()

    async def take(self, owner: Ownership, request_id: str = "clip") -> Upload:
        """Hand a verified clip over, as a fill does."""
        url = f"https://fal.media/{request_id}.mp4"
        row = Generation(
            request_id=request_id, status=Status.AVAILABLE, fal_url=url, created_at=WHEN
        )
        source = UpstreamSource(cast("Any", None), row, url)
        facts = ClipFacts(
            request_id=request_id,
            length=len(DATA),
            etag=etag_of(f"/{request_id}.mp4", len(DATA)),
            last_modified=WHEN,
        )
        reservation = await self.disk.reserve(len(DATA))
        assert reservation is not None
        spool = await Spool.claim(self.spool_dir / f"{request_id}.x.part", self.threads)
        spool.announce(len(DATA))
        await spool.append(DATA)
        spool.verify()
        flight = Flight(request_id, (source,), by_range=False)
        upload = await owner.seen(flight, source, facts)
        await owner.take(
            Filled(
                flight=flight,
                source=source,
                facts=facts,
                head=BodyHead(start=0, stop=len(DATA), total=len(DATA)),
                spool=spool,
                sha256=hashlib.sha256(DATA).hexdigest(),
                reservation=reservation,
                upload=upload,
            )
        )
        spool.release()
        return self.bucket.uploads[-1]

    def spooled(self) -> list[str]:
        return sorted(path.name for path in self.spool_dir.iterdir())


@pytest.fixture
def stage(tmp_path: Path, threads: ThreadPoolExecutor) -> Stage:
    return Stage(tmp_path, threads)


async def emptied(owner: Ownership) -> None:
    async def look() -> bool:
        return len(owner) == 0

    await wait_for(look)


async def test_a_clip_is_near_before_it_is_stored_and_after(stage: Stage) -> None:
    stage.bucket.gate.clear()
    async with stage.running() as owner:
        await stage.take(owner)
        assert "clip" in owner
        assert owner.kept("clip") is not None
        assert stage.spooled() == ["clip.x.json", "clip.x.part"]
        stage.bucket.gate.set()
        await emptied(owner)
        assert owner.kept("clip") is None
        assert stage.files.get("clip") is not None
        assert await is_cached(stage.disk, "clip")
        assert (stage.disk.used, stage.rows.marked, stage.spooled()) == (len(DATA) + FACTS, 1, [])


async def test_uploads_and_notes_share_the_time_of_a_stop(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    async def close(timeout: float) -> None:
        given.append(timeout)

    stage.bucket.gate.clear()
    async with stage.running() as owner:
        await stage.take(owner)
        monkeypatch.setattr(owner._ledger, "close", close)
        monkeypatch.setattr("proxy.delivery.own._FOR_NOTES", 0.01)
        await owner.close(0.2)
        assert given[0] == 0.01  # not another 0.2
        stage.bucket.gate.set()


async def test_what_an_outage_interrupts_is_committed_by_the_same_upload(stage: Stage) -> None:
    stage.bucket.failures = [BucketUnavailable(), BucketUnavailable()]
    async with stage.running() as owner:
        upload = await stage.take(owner)
        await emptied(owner)
        assert (upload.committed, upload.aborted) == (3, 0)
        assert len(stage.bucket.uploads) == 1


async def test_when_the_catalog_was_away_nothing_is_written_to_the_bucket_again(
    stage: Stage,
) -> None:
    stage.rows.failures = [CatalogUnavailable(), CatalogUnavailable()]
    async with stage.running() as owner:
        upload = await stage.take(owner)
        await emptied(owner)
        assert (upload.committed, stage.rows.marked) == (1, 1)


@pytest.mark.blocking  # writing a traceback reads the source files
async def test_a_bug_on_the_way_ends_neither_the_clip_nor_the_retries(stage: Stage) -> None:
    stage.bucket.failures = [ZeroDivisionError()]
    stage.rows.failures = [KeyError("what?")]
    async with stage.running() as owner:
        await stage.take(owner)
        await emptied(owner)
        assert stage.rows.marked == 1
        await stage.take(owner, "another")
        await emptied(owner)
        assert stage.rows.marked == 2


async def test_a_clip_whose_id_means_another_by_now_is_not_kept_near(stage: Stage) -> None:
    stage.rows.means_it = False
    async with stage.running() as owner:
        await stage.take(owner)
        await emptied(owner)
        assert stage.files.get("clip") is None
        assert (stage.disk.used, stage.spooled()) == (0, [])


async def test_a_clip_that_is_disowned_while_it_is_sent_leaves_nothing(stage: Stage) -> None:
    stage.bucket.gate.clear()
    stage.bucket.failures = [BucketUnavailable()]
    async with stage.running() as owner:
        upload = await stage.take(owner)
        await owner.disown("clip")
        assert owner.kept("clip") is None
        stage.bucket.gate.set()
        await emptied(owner)
        assert upload.aborted == 1
        assert (stage.disk.used, stage.spooled(), stage.rows.marked) == (0, [], 0)


async def test_a_clip_that_is_disowned_while_it_is_looked_into_is_read_from_its_own_file(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, go_on, read = threading.Event(), threading.Event(), list[bytes]()

    def slowly(fd: int, length: int) -> None:
        looking.set()
        go_on.wait(5)
        read.append(os.pread(fd, length, 0))

    monkeypatch.setattr("proxy.media.mp4.describe_file", slowly)
    async with stage.running() as owner:
        await stage.take(owner)
        await wait_for(lambda: _is(looking.is_set()))
        await owner.disown("clip")
        go_on.set()
        await emptied(owner)
        assert read == [DATA]
        assert (stage.disk.used, stage.spooled()) == (0, [])


async def test_bytes_that_are_not_ours_are_left_and_our_copy_stays_near(stage: Stage) -> None:
    async def theirs(_key: str) -> Any:
        return type("Info", (), {"metadata": {}, "etag": "theirs", "altered": False})()

    stage.bucket.failures = [ObjectConflict()]
    stage.bucket.head = theirs  # type: ignore[method-assign]
    async with stage.running() as owner:
        upload = await stage.take(owner)
        await emptied(owner)
        assert (len(stage.bucket.uploads), stage.rows.marked) == (1, 0)
        await wait_for(lambda: _is(upload.aborted == 1))
        assert await is_cached(stage.disk, "clip")


async def _is(true: bool) -> bool:
    return true


async def test_a_disk_that_refuses_the_note_beside_the_clip_costs_only_its_survival(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_module, "write_facts", full)
    stage.bucket.failures = [BucketUnavailable()]
    async with stage.running() as owner:
        await stage.take(owner)
        await emptied(owner)
        assert stage.rows.marked == 1
        assert stage.spooled() == []


async def test_a_cache_that_refuses_the_file_costs_only_the_copy(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    async with stage.running() as owner:
        monkeypatch.setattr(stage.disk, "adopt", refuse)
        await stage.take(owner)
        await emptied(owner)
        assert stage.rows.marked == 1
        assert (stage.disk.used, stage.spooled()) == (0, [])


async def test_a_clip_from_the_bucket_that_cannot_be_hashed_leaves_nothing_spoken_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Spool) -> None:
        raise DiskExhausted

    monkeypatch.setattr(Spool, "digest", fail)
    async with stage.running() as owner:
        source = BucketSource(cast("Any", stage.bucket), "clip", None, lambda _: True)
        facts = ClipFacts(
            request_id="clip", length=len(DATA), etag=etag_of("clip", 1), last_modified=WHEN
        )
        reservation = await stage.disk.reserve(len(DATA))
        assert reservation is not None
        spool = await Spool.claim(stage.spool_dir / "clip.x.part", stage.threads)
        await spool.append(DATA)
        filled = Filled(
            flight=Flight("clip", (source,), by_range=False),
            source=source,
            facts=facts,
            head=BodyHead(start=0, stop=len(DATA), total=len(DATA)),
            spool=spool,
            sha256=None,
            reservation=reservation,
            upload=None,
        )
        with pytest.raises(DiskExhausted):
            await owner.take(filled)
        assert (stage.disk.used, stage.spooled()) == (0, [])
        spool.release()


async def test_a_process_that_ends_leaves_its_clips_to_the_next(stage: Stage) -> None:
    stage.bucket.failures = [BucketUnavailable() for _ in range(1000)]
    async with stage.running() as owner:
        upload = await stage.take(owner)
        await wait_for(lambda: _is(upload.committed > 1))
    assert upload.aborted == 1
    stage.bucket.failures.clear()
    async with stage.running() as owner:
        await emptied(owner)
        assert stage.rows.marked == 1
        assert stage.disk.used == len(DATA) + FACTS


async def test_a_clip_kept_from_before_is_dropped_if_its_id_means_another_by_now(
    stage: Stage,
) -> None:
    stage.bucket.failures = [BucketUnavailable() for _ in range(1000)]
    async with stage.running() as owner:
        await stage.take(owner)
    stage.bucket.failures.clear()
    stage.rows.row = Generation(
        request_id="clip",
        status=Status.AVAILABLE,
        fal_url="https://fal.media/another.mp4",
        created_at=WHEN,
    )
    async with stage.running() as owner:
        await emptied(owner)
        assert (stage.bucket.stored, stage.rows.marked, stage.spooled()) == ([], 0, [])


async def test_an_abort_is_repeated_until_it_holds(stage: Stage) -> None:
    """Peers 8 (scylladb#20425)."""
    stage.bucket.aborts_hold = False
    async with stage.running() as owner:
        upload = Upload(stage.bucket)
        owner.abandon(cast("Any", upload))
        await wait_for(lambda: _is(upload.aborted >= 3))
        stage.bucket.aborts_hold = True
        held = upload.aborted
        await asyncio.sleep(0.15)
        assert upload.aborted <= held + 1


async def test_clips_that_a_dead_process_was_bringing_in_are_asked_for_until_the_catalog_hears(
    stage: Stage,
) -> None:
    stage.spool_dir.mkdir(parents=True)
    (stage.spool_dir / "clip.x.part").write_bytes(DATA[:500])
    stage.rows.failures = [CatalogUnavailable("away"), CatalogUnavailable("away")]

    async def asked_for() -> bool:
        return stage.rows.wanted == ["clip"]

    async with stage.running():
        await wait_for(asked_for)
        await wait_for(lambda: _is(stage.spooled() == []))
    assert stage.rows.failures == []


async def test_clips_that_are_whole_need_nobody_to_bring_them_in(stage: Stage) -> None:
    stage.bucket.failures = [BucketUnavailable("away")] * 3
    async with stage.running() as owner:
        await stage.take(owner)
        kept = await owner.outcome("clip")
        assert isinstance(kept, BucketUnavailable)
    async with stage.running() as owner:
        await emptied(owner)
    assert stage.rows.wanted == []
    assert len(stage.bucket.stored) == 1
