"""What every bucket promises: one suite, whatever the bucket is made of.

Belongs here: the protocol of `proxy.storage.bucket`, seen from outside. Must not know: how any
implementation keeps it.
"""

import asyncio
import contextlib
import gc
import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ByteSize

from proxy.errors import CorruptClip, ObjectConflict, ObjectMissing, SourceChanged
from proxy.records import ByteStream
from proxy.settings import Settings
from proxy.storage.bucket import Bucket, NewObject
from proxy.storage.directory import DirectoryBucket
from proxy.storage.opening import open_bucket
from tests.fakes.bucket import FaultyBucket, R2Rules
from tests.fixtures.origin import wait_for

MIB = 1024 * 1024
PART = 5 * MIB
SINGLE = MIB
KEY = "videos/clip.mp4"
SETTINGS = Settings(
    single_put_max=ByteSize(SINGLE),
    part_size=ByteSize(PART),
    bucket_conditional_complete=None,
    bucket_timeout=10.0,
)


def made_up(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def read_all(stream: ByteStream) -> bytes:
    chunks = []
    while chunk := await stream.read():
        chunks.append(chunk)
    assert await stream.read() == b""
    await stream.close()
    return b"".join(chunks)


@dataclass
class Ground:
    """A bucket under test, and a way to look at what it leaves behind."""

    bucket: Bucket
    folder: Path
    leftovers: Callable[[], list[Any]]
    writes_a_second: float

    def file(self, data: bytes) -> Path:
        path = self.folder / os.urandom(8).hex()
        path.write_bytes(data)
        return path

    def new(self, data: bytes, key: str = KEY, **more: Any) -> NewObject:
        fields: dict[str, Any] = {
            "content_type": "video/mp4",
            "metadata": {"firstview-etag": sha256(data)[:32]},
        }
        return NewObject(key=key, size=len(data), **(fields | more))

    async def put(self, data: bytes, key: str = KEY, **more: Any) -> str:
        """Write an object; return the bucket's own ETag."""
        upload = self.bucket.upload(self.new(data, key, **more), self.file(data))
        info = await upload.commit(sha256(data))
        return info.etag

    async def get(self, key: str = KEY, *args: Any, **more: Any) -> bytes:
        return await read_all(await self.bucket.open(key, *args, **more))


@contextlib.asynccontextmanager
async def directory_ground(tmp_path: Path, *, use_xattrs: bool) -> AsyncIterator[Ground]:
    root = tmp_path / "bucket"
    bucket = await DirectoryBucket.at(root, use_xattrs=use_xattrs)
    yield Ground(bucket, tmp_path, lambda: list((root / ".tmp").iterdir()), 1000)
    await bucket.close()


@contextlib.asynccontextmanager
async def s3_ground(
    tmp_path: Path, name: str, client: Any, *, conditional: bool, writes_a_second: float
) -> AsyncIterator[Ground]:
    settings = SETTINGS.model_copy(update={"bucket_conditional_complete": conditional})
    bucket = await open_bucket(f"s3://{name}", settings)

    def open_uploads() -> list[Any]:
        found: list[Any] = client.list_multipart_uploads(Bucket=name).get("Uploads", [])
        return found

    yield Ground(bucket, tmp_path, open_uploads, writes_a_second)
    await bucket.close()


@pytest_asyncio.fixture(params=["directory", "directory-sidecars", "s3", "s3-like-r2"])
async def ground(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Ground]:
    kind: str = request.param
    async with contextlib.AsyncExitStack() as stack:
        if kind.startswith("directory"):
            made = directory_ground(tmp_path, use_xattrs=kind == "directory")
            yield await stack.enter_async_context(made)
            return
        name = request.getfixturevalue("s3_bucket_name")
        client = request.getfixturevalue("s3_client")
        request.getfixturevalue("aws_environment")
        like_r2 = kind == "s3-like-r2"
        if like_r2:
            endpoint = request.getfixturevalue("s3_server").endpoint_url
            r2 = await stack.enter_async_context(FaultyBucket(endpoint, R2Rules()))
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", r2.endpoint_url)
        made = s3_ground(
            tmp_path, name, client, conditional=not like_r2, writes_a_second=1 if like_r2 else 1000
        )
        yield await stack.enter_async_context(made)


BOTH_WAYS = pytest.mark.parametrize("size", [1000, PART + 1000], ids=["small", "in-parts"])


# --- writing ----------------------------------------------------------------------------------


@BOTH_WAYS
async def test_what_was_committed_is_read_back_with_its_type_and_metadata(
    ground: Ground, size: int
) -> None:
    data = made_up(size)
    metadata = {"firstview-etag": "0123", "firstview-model": "fal-ai/veo3"}
    upload = ground.bucket.upload(ground.new(data, metadata=metadata), ground.file(data))
    committed = await upload.commit(sha256(data))
    found = await ground.bucket.head(KEY)
    assert found is not None
    assert (found.key, found.size, found.content_type) == (KEY, size, "video/mp4")
    assert metadata.items() <= found.metadata.items()
    assert (committed.key, committed.size, committed.etag) == (KEY, size, found.etag)
    assert abs(committed.last_modified - found.last_modified) <= timedelta(seconds=2)
    stream = await ground.bucket.open(KEY)
    assert (stream.head.start, stream.head.stop, stream.head.total) == (0, size, size)
    assert stream.head.content_type == "video/mp4"
    assert stream.head.validator == f'"{found.etag}"'
    assert stream.head.metadata is not None
    assert metadata.items() <= stream.head.metadata.items()
    assert await read_all(stream) == data
    assert ground.leftovers() == []


async def test_the_md5_that_a_body_is_announced_with_is_right(ground: Ground) -> None:
    data = made_up(1000)
    await ground.put(data)
    stream = await ground.bucket.open(KEY)
    await stream.close()
    assert stream.head.md5 in {None, hashlib.md5(data).digest()}


@BOTH_WAYS
async def test_nothing_is_visible_before_commit(ground: Ground, size: int) -> None:
    """Peers 1, 2, 37: what is not whole is not there."""
    data = made_up(size)
    upload = ground.bucket.upload(ground.new(data), ground.file(data))
    await upload.advance(size)
    await asyncio.sleep(0.2)
    assert await ground.bucket.head(KEY) is None
    assert [info async for info in ground.bucket.list()] == []
    await upload.abort()


@pytest.mark.parametrize(
    "size", [SINGLE, SINGLE + 1, 2 * PART - 1, 2 * PART, 2 * PART + 1, 2 * PART + 12345]
)
async def test_a_growing_file_arrives_whole_whatever_its_length(ground: Ground, size: int) -> None:
    """Peers 41: lengths around a part's boundary."""
    data = made_up(size)
    path = ground.file(b"")
    upload = ground.bucket.upload(ground.new(data), path)
    written = 0
    with path.open("ab", buffering=0) as file:
        while written < size:
            step = min(size - written, 1_234_567)
            file.write(data[written : written + step])
            written += step
            await upload.advance(written)
            await asyncio.sleep(0)
    info = await upload.commit(sha256(data))
    assert info.size == size
    assert await ground.get() == data
    assert ground.leftovers() == []


@BOTH_WAYS
async def test_the_same_bytes_again_are_success(ground: Ground, size: int) -> None:
    data = made_up(size)
    first = await ground.put(data)
    assert await ground.put(data) == first
    assert ground.leftovers() == []


@BOTH_WAYS
async def test_a_commit_called_again_says_the_same(ground: Ground, size: int) -> None:
    data = made_up(size)
    upload = ground.bucket.upload(ground.new(data), ground.file(data))
    first = await upload.commit(sha256(data))
    assert await upload.commit(sha256(data)) == first


@BOTH_WAYS
async def test_other_bytes_are_a_conflict_and_the_object_stays(ground: Ground, size: int) -> None:
    data = made_up(size)
    etag = await ground.put(data)
    other = made_up(size, seed=1)
    upload = ground.bucket.upload(ground.new(other), ground.file(other))
    with pytest.raises(ObjectConflict):
        await upload.commit(sha256(other))
    await upload.abort()
    assert await ground.get(etag=etag) == data
    assert ground.leftovers() == []


@BOTH_WAYS
async def test_two_writers_of_the_same_bytes_both_succeed(ground: Ground, size: int) -> None:
    """Peers 23: parallel first requests on two replicas."""
    data = made_up(size)
    etags = await asyncio.gather(ground.put(data), ground.put(data))
    assert etags[0] == etags[1]
    assert await ground.get() == data
    assert ground.leftovers() == []


async def test_of_two_writers_of_different_bytes_one_wins_whole(ground: Ground) -> None:
    versions = [made_up(3000, seed) for seed in range(2)]
    results = await asyncio.gather(*map(ground.put, versions), return_exceptions=True)
    lost = [result for result in results if isinstance(result, ObjectConflict)]
    assert len(lost) == 1, results
    assert await ground.get() == versions[results.index(lost[0]) ^ 1]


# --- replacing --------------------------------------------------------------------------------


@BOTH_WAYS
async def test_an_object_is_replaced_by_whoever_knows_its_etag(ground: Ground, size: int) -> None:
    etag = await ground.put(made_up(500))
    data = made_up(size, seed=1)
    await ground.put(data, replaces=etag)
    found = await ground.bucket.head(KEY)
    assert found is not None
    assert found.metadata["firstview-etag"] == sha256(data)[:32]
    assert await ground.get() == data
    assert ground.leftovers() == []


@BOTH_WAYS
async def test_a_replacement_that_comes_too_late_is_a_conflict(ground: Ground, size: int) -> None:
    old = await ground.put(made_up(500))
    kept = made_up(size, seed=1)
    await ground.put(kept, replaces=old)
    data = made_up(size, seed=2)
    upload = ground.bucket.upload(ground.new(data, replaces=old), ground.file(data))
    with pytest.raises(ObjectConflict):
        await upload.commit(sha256(data))
    await upload.abort()
    assert await ground.get() == kept
    assert ground.leftovers() == []


async def test_a_replacement_of_what_is_gone_writes_nothing(ground: Ground) -> None:
    data = made_up(1000)
    with pytest.raises(ObjectConflict):
        await ground.put(data, replaces="0" * 32)
    assert await ground.bucket.head(KEY) is None


async def test_a_replacement_repeated_after_a_lost_reply_is_success(ground: Ground) -> None:
    old = await ground.put(made_up(500))
    data = made_up(1000, seed=1)
    new = await ground.put(data, replaces=old)
    assert await ground.put(data, replaces=old) == new


async def test_the_metadata_of_the_same_bytes_can_be_replaced(ground: Ground) -> None:
    data = made_up(500)
    etag = await ground.put(data, metadata={"firstview-etag": "old"})
    await ground.put(data, metadata={"firstview-etag": "new"}, replaces=etag)
    found = await ground.bucket.head(KEY)
    assert found is not None
    assert found.metadata["firstview-etag"] == "new"


async def test_bytes_are_never_paired_with_the_metadata_of_another_version(ground: Ground) -> None:
    """Peers 14: metadata and body of different versions."""
    rounds = 40 if ground.writes_a_second > 1 else 2
    etag = await ground.put(made_up(3000))
    done = asyncio.Event()

    async def keep_reading() -> int:
        checked = 0
        while not done.is_set():
            stream = await ground.bucket.open(KEY)
            assert stream.head.metadata is not None
            announced = stream.head.metadata["firstview-etag"]
            assert sha256(await read_all(stream))[:32] == announced
            checked += 1
        return checked

    readers = [asyncio.create_task(keep_reading()) for _ in range(3)]
    for seed in range(1, rounds):
        etag = await ground.put(made_up(3000 + seed, seed), replaces=etag)
    done.set()
    assert all(checked > 0 for checked in await asyncio.gather(*readers))


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 1), (0, 3000), (10, 20), (2999, None), (1000, None), (2000, 3000), (2000, 9999)],
)
async def test_a_range_is_exactly_what_was_asked_for(
    ground: Ground, start: int, stop: int | None
) -> None:
    """Peers 17, 19, 33: no prefix is read and discarded, ends past the end are clipped."""
    data = made_up(3000)
    await ground.put(data)
    stream = await ground.bucket.open(KEY, start, stop)
    end = min(stop or 3000, 3000)
    assert (stream.head.start, stream.head.stop, stream.head.total) == (start, end, 3000)
    assert await read_all(stream) == data[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(3000, None), (3000, 3001), (10, 10), (10, 5)])
async def test_a_range_without_a_byte_is_an_error(
    ground: Ground, start: int, stop: int | None
) -> None:
    """Peers 29: 416 is not 404."""
    await ground.put(made_up(3000))
    with pytest.raises(CorruptClip):
        await ground.bucket.open(KEY, start, stop)


async def test_what_is_missing_is_missing(ground: Ground) -> None:
    assert await ground.bucket.head(KEY) is None
    with pytest.raises(ObjectMissing):
        await ground.bucket.open(KEY)
    assert await ground.bucket.open_local(KEY) is None


async def test_another_version_than_the_one_asked_for_is_not_read(ground: Ground) -> None:
    """Peers 14, 29: the ETag is checked with the read, not before it."""
    etag = await ground.put(made_up(1000))
    assert await ground.get(KEY, 10, 20, etag=etag) == made_up(1000)[10:20]
    await ground.put(made_up(2000, seed=1), replaces=etag)
    with pytest.raises(SourceChanged):
        await ground.bucket.open(KEY, 10, 20, etag=etag)


async def test_a_local_bucket_gives_the_file_itself(ground: Ground) -> None:
    data = made_up(1000)
    await ground.put(data)
    local = await ground.bucket.open_local(KEY)
    assert (local is not None) == ground.bucket.is_local
    assert await asyncio.to_thread(ground.bucket.seems_here, KEY) == ground.bucket.is_local
    assert not await asyncio.to_thread(ground.bucket.seems_here, "videos/another.mp4")
    if local is not None:
        assert os.pread(local.fd, 2000, 0) == data
        assert local.info == await ground.bucket.head(KEY)
        os.close(local.fd)


# --- all objects ------------------------------------------------------------------------------


async def test_objects_are_listed_below_a_prefix_in_key_order(ground: Ground) -> None:
    names = ["videos/b.mp4", "videos/a/z.mp4", "videos/a.mp4", "videos/a-1.mp4", "other/x", "top"]
    sizes = {name: 100 + number for number, name in enumerate(names)}
    for name, size in sizes.items():
        await ground.put(made_up(size), key=name)
    listed = [info async for info in ground.bucket.list()]
    assert [info.key for info in listed] == sorted(names)
    assert {info.key: info.size for info in listed} == sizes
    for info in listed:
        head = await ground.bucket.head(info.key)
        assert head is not None
        assert (info.etag, info.last_modified) == (head.etag, head.last_modified)
    for prefix in ("videos/", "videos/a", "videos/a/", "o", "nothing/", "videos/b.mp4"):
        found = [info.key async for info in ground.bucket.list(prefix)]
        assert found == sorted(name for name in names if name.startswith(prefix))


async def test_deleting_twice_is_no_error(ground: Ground) -> None:
    await ground.put(made_up(100))
    await ground.bucket.delete(KEY)
    assert await ground.bucket.head(KEY) is None
    await ground.bucket.delete(KEY)
    await ground.put(made_up(200, seed=1))
    assert await ground.get() == made_up(200, seed=1)


async def test_a_bucket_that_can_be_used_passes_its_check(ground: Ground) -> None:
    await ground.bucket.check()
    assert ground.leftovers() == []
    assert [info async for info in ground.bucket.list()] == []


# --- leaving nothing behind -------------------------------------------------------------------


@BOTH_WAYS
async def test_abort_leaves_nothing_and_may_be_called_again(ground: Ground, size: int) -> None:
    """Peers 6, 7: failed fills leave no uploads and no parts."""
    data = made_up(size)
    upload = ground.bucket.upload(ground.new(data), ground.file(data))
    await upload.advance(size)
    await asyncio.sleep(0.05)
    await upload.abort()
    await upload.abort()
    assert ground.leftovers() == []
    assert await ground.bucket.head(KEY) is None


async def test_abort_at_once_leaves_nothing(ground: Ground) -> None:
    data = made_up(2 * PART)
    upload = ground.bucket.upload(ground.new(data), ground.file(data))
    await upload.abort()
    await upload.advance(len(data))
    await upload.abort()
    assert ground.leftovers() == []


async def test_abort_after_commit_leaves_the_object(ground: Ground) -> None:
    data = made_up(PART + 1)
    upload = ground.bucket.upload(ground.new(data), ground.file(data))
    await upload.commit(sha256(data))
    await upload.abort()
    assert await ground.get() == data


async def test_an_aborted_upload_can_still_be_committed(ground: Ground) -> None:
    data = made_up(PART + 1)
    upload = ground.bucket.upload(ground.new(data), ground.file(data))
    await upload.advance(len(data))
    await upload.abort()
    await upload.commit(sha256(data))
    assert await ground.get() == data
    assert ground.leftovers() == []


async def test_uploads_that_a_killed_process_left_are_swept(ground: Ground) -> None:
    """Peers 7: orphan multipart parts after a kill."""
    data = made_up(PART + 1)
    abandoned = ground.bucket.upload(ground.new(data), ground.file(data))
    await abandoned.advance(len(data))
    if ground.bucket.is_local:
        (ground.folder / "bucket" / ".tmp" / "abandoned").write_bytes(b"part")
    else:
        async with asyncio.timeout(10):
            while not ground.leftovers():  # noqa: ASYNC110 - only the server knows
                await asyncio.sleep(0.01)
    assert await ground.bucket.abort_uploads("videos/", timedelta(hours=1)) == 0
    assert len(ground.leftovers()) == 1
    await asyncio.sleep(0.05)
    assert await ground.bucket.abort_uploads("videos/", timedelta(0)) == 1
    assert ground.leftovers() == []
    await abandoned.abort()


async def test_no_file_stays_open(ground: Ground) -> None:
    """Peers 25: nothing leaks when a reader is not drained."""
    await ground.put(made_up(1000))
    await ground.put(made_up(PART + 1), key="videos/large.mp4")
    await ground.get()
    gc.collect()
    before = open_files()
    for number in range(5):
        await ground.put(made_up(1000), key=f"videos/{number}.mp4")
        undrained = await ground.bucket.open("videos/large.mp4")
        await undrained.read()
        await undrained.close()
        with pytest.raises(ObjectMissing):
            await ground.bucket.open("videos/missing.mp4")
        with pytest.raises(SourceChanged):
            await ground.bucket.open(KEY, etag="0" * 32)

    async def few_are_open() -> bool:
        # An S3 bucket keeps connections open; a handful, not one per request.
        return open_files() <= before + (0 if ground.bucket.is_local else 6)

    await wait_for(few_are_open)
