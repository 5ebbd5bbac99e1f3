"""An S3 store that fails in every way: uploads end whole or not at all, and reads never lie.

Each upload here goes through a proxy that applies one fault in front of a real S3 server, which
is then asked, past the proxy, what it really holds.
"""

import asyncio
import hashlib
import random
import time
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ByteSize

from proxy.errors import (
    BucketError,
    BucketRefused,
    BucketUnavailable,
    CorruptClip,
    ObjectConflict,
    SourceChanged,
)
from proxy.records import ByteStream
from proxy.settings import Settings
from proxy.storage.bucket import Bucket, NewObject, Upload
from proxy.storage.opening import open_bucket
from tests.fakes.bucket import Fault, FaultyBucket
from tests.fixtures.origin import wait_for

MIB = 1024 * 1024
PART = 5 * MIB
SMALL, LARGE = 300_000, 2 * PART + 300_000
KEY = "videos/clip.mp4"
TIMEOUT = 0.5
"""Seconds, where the store is going to hang: whoever waits for it is not kept for long."""
SETTINGS = Settings(
    single_put_max=ByteSize(MIB),
    part_size=ByteSize(PART),
    upload_parts=2,
    bucket_attempts=2,
    bucket_timeout=20.0,
    bucket_connect_timeout=20.0,
)


@dataclass
class Store:
    """The bucket under test, the faults before it, and a client that goes past them."""

    bucket: Bucket
    faulty: FaultyBucket
    name: str
    client: Any
    folder: Path

    def upload(self, data: bytes, key: str = KEY, **more: Any) -> tuple[Upload, str]:
        path = self.folder / f"{len(list(self.folder.iterdir()))}.part"
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        fields: dict[str, Any] = {"content_type": "video/mp4", "metadata": {"firstview-etag": "e"}}
        new = NewObject(key=key, size=len(data), **(fields | more))
        return self.bucket.upload(new, path), sha256

    def put_past_the_faults(self, data: bytes, key: str = KEY) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def visible(self) -> dict[str, bytes]:
        """Read what the store really holds."""
        listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return {
            found["Key"]: self.client.get_object(Bucket=self.name, Key=found["Key"])["Body"].read()
            for found in listed
        }

    def open_uploads(self) -> list[Any]:
        found: list[Any] = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return found


def settings_for(request: pytest.FixtureRequest) -> Settings:
    """Little patience where the test's fault hangs; elsewhere a busy store is waited for."""
    asked = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    hangs = asked.get("how") in HANGING or "stall_reply_at" in asked.get("at", {})
    if not hangs:
        return SETTINGS
    timeout = TIMEOUT if asked.get("size") != LARGE else 2 * TIMEOUT
    quick = {"bucket_timeout": timeout, "bucket_connect_timeout": timeout}
    return SETTINGS.model_copy(update=quick)


@pytest_asyncio.fixture
async def store(
    request: pytest.FixtureRequest,
    faulty_bucket: FaultyBucket,
    s3_bucket_name: str,
    s3_client: Any,
    tmp_path: Path,
) -> AsyncIterator[Store]:
    bucket = await open_bucket(f"s3://{s3_bucket_name}", settings_for(request))
    yield Store(bucket, faulty_bucket, s3_bucket_name, s3_client, tmp_path)
    await bucket.close()


def made_up(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def read_all(stream: ByteStream) -> bytes:
    received = b""
    while chunk := await stream.read():
        received += chunk
    return received


async def two_parts_are_sent(store: Store) -> None:
    async def are_seen() -> bool:
        return len(store.faulty.seen("UploadPart")) >= 2

    await wait_for(are_seen)


HOW: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "503-slow-down": {"status": 503, "code": "SlowDown"},
    "429": {"status": 429, "code": "TooManyRequests"},
    "reset-at-once": {"reset_request_at": 0},
    "reset-in-the-body": {"reset_request_at": 150_000},
    "stall-in-the-body": {"stall_request_at": 150_000},
    "no-answer": {"delay": TIMEOUT * 3},
    "lost-reply": {"lose_reply": True},
}
HANGING = {"stall-in-the-body", "no-answer"}
OF_A_BODY = {"reset-in-the-body", "stall-in-the-body", "reset-at-once"}


def every_fault(*left_out: str) -> list[Any]:
    cases = [(SMALL, "PutObject", how) for how in HOW]
    cases += [(LARGE, "UploadPart", how) for how in HOW]
    for operation in ("CreateMultipartUpload", "CompleteMultipartUpload"):
        cases += [(LARGE, operation, how) for how in HOW if how not in OF_A_BODY]
    kept = [case for case in cases if case[2] not in left_out]
    return [pytest.param(*case, id=f"{case[1]}-{case[2]}") for case in kept]


@pytest.mark.parametrize(("size", "operation", "how"), every_fault())
async def test_one_fault_leaves_the_object_whole_and_nothing_else(
    store: Store, size: int, operation: str, how: str
) -> None:
    """Peers 1, 6, 7, 8, 37."""
    fault = Fault(operation=operation, **HOW[how])
    store.faulty.faults.append(fault)
    data = made_up(size)
    upload, sha256 = store.upload(data)
    await upload.advance(size)
    info = await upload.commit(sha256)
    assert fault.hits == 1
    assert info.size == size
    assert store.visible() == {KEY: data}
    assert store.open_uploads() == []


@pytest.mark.parametrize(
    ("size", "operation", "how"), every_fault("503-slow-down", "429", "reset-at-once")
)
async def test_a_lasting_fault_leaves_nothing_visible_and_the_commit_can_be_called_again(
    store: Store, size: int, operation: str, how: str
) -> None:
    """Peers 6, 7, 37: either whole, or a retryable error and nothing left behind."""
    store.faulty.faults.append(Fault(operation=operation, times=1000, **HOW[how]))
    data = made_up(size)
    upload, sha256 = store.upload(data)
    (failed,) = await asyncio.gather(upload.commit(sha256), return_exceptions=True)
    if isinstance(failed, BaseException):
        assert isinstance(failed, BucketError)
        assert failed.retryable
        assert store.visible() == {}
    else:
        # Only a store that did all it was asked can be found to have done it.
        assert how in {"lost-reply", "no-answer"}
    store.faulty.faults.clear()
    if how == "no-answer":  # such a request may still land, and begin an upload
        await store.faulty.quiet()
    await upload.abort()
    assert store.open_uploads() == []
    assert (await upload.commit(sha256)).size == size
    assert store.visible() == {KEY: data}
    assert store.open_uploads() == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_a_bucket_that_is_down_gets_the_object_once_it_is_back(
    store: Store, size: int
) -> None:
    data = made_up(size)
    upload, sha256 = store.upload(data)
    await upload.advance(size // 2 + PART)
    await store.faulty.down()
    with pytest.raises(BucketUnavailable):
        await upload.commit(sha256)
    await upload.abort()
    await store.faulty.up()
    await upload.commit(sha256)
    assert store.visible() == {KEY: data}
    assert store.open_uploads() == []


async def test_an_upload_aborted_while_the_bucket_is_down_is_aborted_when_it_is_back(
    store: Store,
) -> None:
    """Peers 7: an abort that failed may be called again."""
    upload, _ = store.upload(made_up(LARGE))
    await upload.advance(LARGE)
    await two_parts_are_sent(store)
    await store.faulty.down()
    await upload.abort()
    assert len(store.open_uploads()) == 1
    await store.faulty.up()
    await upload.abort()
    assert store.open_uploads() == []


async def test_an_abort_that_did_not_take_is_repeated(store: Store) -> None:
    """Peers 8: an abort must be repeated, parts land late."""
    store.faulty.faults.append(Fault(operation="AbortMultipartUpload", status=204))
    upload, _ = store.upload(made_up(LARGE))
    await upload.advance(LARGE)
    await two_parts_are_sent(store)
    await upload.abort()
    assert len(store.faulty.seen("AbortMultipartUpload")) == 2
    assert store.open_uploads() == []


async def test_an_upload_that_someone_else_aborted_is_sent_again(store: Store) -> None:
    data = made_up(LARGE)
    upload, sha256 = store.upload(data)
    await upload.advance(LARGE)
    await two_parts_are_sent(store)
    (opened,) = store.open_uploads()
    store.client.abort_multipart_upload(Bucket=store.name, Key=KEY, UploadId=opened["UploadId"])
    await upload.commit(sha256)
    assert store.visible() == {KEY: data}
    assert store.open_uploads() == []


async def test_refused_credentials_are_not_tried_again(store: Store) -> None:
    store.faulty.faults.append(Fault(operation="PutObject", status=403, code="AccessDenied"))
    upload, sha256 = store.upload(made_up(SMALL))
    with pytest.raises(BucketRefused) as refused:
        await upload.commit(sha256)
    assert not refused.value.retryable
    assert len(store.faulty.seen("PutObject")) == 1


async def test_a_429_is_waited_out_for_a_second(store: Store) -> None:
    """R2 takes one write per key and second."""
    store.faulty.faults.append(Fault(operation="PutObject", status=429, code="TooManyRequests"))
    upload, sha256 = store.upload(made_up(SMALL))
    started = time.monotonic()
    await upload.commit(sha256)
    assert time.monotonic() - started >= 1.0


async def test_a_store_that_keeps_other_bytes_than_it_was_sent_is_not_believed(
    store: Store,
) -> None:
    """Peers 20: a corrupt object is never taken for stored."""
    other = made_up(SMALL, seed=1)
    upload, sha256 = store.upload(made_up(SMALL))
    store.put_past_the_faults(other)
    with pytest.raises(ObjectConflict):
        await upload.commit(sha256)
    assert store.visible() == {KEY: other}


async def test_what_is_signed_is_what_is_sent(store: Store) -> None:
    upload, sha256 = store.upload(made_up(SMALL))
    await upload.commit(sha256)
    (put,) = store.faulty.seen("PutObject")
    expected = {"content-md5", "content-type", "content-length", "if-none-match", "host"}
    metadata = {name for name in put.headers if name.startswith("x-amz-meta-")}
    assert set(put.headers) - metadata == expected
    assert metadata == {"x-amz-meta-firstview-etag", "x-amz-meta-firstview-sha256"}
    assert put.headers["if-none-match"] == "*"
    assert put.headers["content-length"] == str(SMALL)


# --- bounds -----------------------------------------------------------------------------------


async def test_an_upload_sends_no_more_parts_at_once_than_it_may(store: Store) -> None:
    """Peers 12: what comes in is bounded."""
    store.faulty.faults.append(Fault(operation="UploadPart", times=99, delay=0.1))
    upload, sha256 = store.upload(made_up(4 * PART))
    await upload.commit(sha256)
    assert store.faulty.most_at_once["UploadPart"] == SETTINGS.upload_parts


async def test_advance_does_not_wait_for_the_bucket(store: Store) -> None:
    store.faulty.faults.append(Fault(times=99, delay=0.3))
    upload, _ = store.upload(made_up(LARGE))
    started = time.monotonic()
    await upload.advance(PART)
    await upload.advance(LARGE)
    assert store.faulty.log == []  # nothing has been answered
    assert time.monotonic() - started < 5
    store.faulty.faults.clear()
    await upload.abort()
    assert store.open_uploads() == []


async def test_parts_that_failed_surface_in_the_next_advance(store: Store) -> None:
    store.faulty.faults.append(Fault(operation="UploadPart", times=99, status=403))
    upload, _ = store.upload(made_up(LARGE))
    await upload.advance(LARGE)

    async def keep_advancing() -> None:
        while True:
            await asyncio.sleep(0.02)
            await upload.advance(LARGE)

    with pytest.raises(BucketRefused):
        await asyncio.wait_for(keep_advancing(), 10)
    await upload.abort()
    assert store.open_uploads() == []


async def test_memory_does_not_grow_with_the_parts(store: Store) -> None:
    """Peers 13, 40: no part is held in memory, also when the bucket is slow to take it."""
    size = 8 * PART
    path = store.folder / "large.part"
    path.write_bytes(made_up(size))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    store.faulty.faults.append(Fault(operation="UploadPart", times=99, rate=20 * MIB))
    new = NewObject(key=KEY, size=size, content_type="video/mp4", metadata={})
    upload = store.bucket.upload(new, path)
    tracemalloc.start()
    try:
        await upload.commit(digest)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Chunks of 256 KiB for two parts, on both sides of the proxy, which shares this process.
    assert peak < 5 * MIB


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["500", "503-slow-down", "429", "no-answer", "lost-reply"])
async def test_a_read_that_fails_before_its_body_is_tried_again(store: Store, how: str) -> None:
    data = made_up(SMALL)
    store.put_past_the_faults(data)
    store.faulty.faults.append(Fault(operation="GetObject", **HOW[how]))
    stream = await store.bucket.open(KEY, 1000)
    assert await read_all(stream) == data[1000:]
    await stream.close()


@pytest.mark.parametrize(
    "at", [{"reset_reply_at": 100_000}, {"cut_reply_at": 100_000}, {"stall_reply_at": 100_000}]
)
async def test_a_body_that_breaks_off_is_an_error_never_an_end(
    store: Store, at: dict[str, Any]
) -> None:
    """Peers 1, 20, 35: a body cut short never ends cleanly, and never hangs."""
    store.put_past_the_faults(made_up(SMALL))
    store.faulty.faults.append(Fault(operation="GetObject", **at))
    stream = await store.bucket.open(KEY)
    with pytest.raises(BucketUnavailable):
        await asyncio.wait_for(read_all(stream), 20)
    await stream.close()


async def test_a_store_that_ignores_ranges_says_so_in_the_head(store: Store) -> None:
    """Peers 5: a 200 to a range is never taken for the range."""
    data = made_up(SMALL)
    store.put_past_the_faults(data)
    store.faulty.faults.append(Fault(operation="GetObject", answer_whole=data))
    stream = await store.bucket.open(KEY, 1000, 2000)
    assert (stream.head.start, stream.head.stop, stream.head.total) == (0, SMALL, SMALL)
    await stream.close()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", BucketRefused),
        (404, "NoSuchBucket", BucketRefused),
        (412, "PreconditionFailed", SourceChanged),
        (416, "InvalidRange", CorruptClip),
        (429, "TooManyRequests", BucketUnavailable),
        (500, "InternalError", BucketUnavailable),
        (503, "SlowDown", BucketUnavailable),
        (301, "PermanentRedirect", BucketRefused),
        (400, "ExpiredToken", BucketRefused),
    ],
)
async def test_no_failure_is_taken_for_a_missing_object(
    store: Store, status: int, code: str, kind: type[Exception]
) -> None:
    """Peers 29: 416, 412, 429 and 5xx are not 404."""
    store.faulty.faults.append(Fault(operation="GetObject", times=99, status=status, code=code))
    with pytest.raises(kind):
        await store.bucket.open(KEY, 1)


@pytest.mark.parametrize(("status", "kind"), [(403, BucketRefused), (500, BucketUnavailable)])
async def test_a_look_that_fails_is_not_a_missing_object(
    store: Store, status: int, kind: type[Exception]
) -> None:
    """Peers 29."""
    store.faulty.faults.append(Fault(operation="HeadObject", times=99, status=status))
    with pytest.raises(kind):
        await store.bucket.head(KEY)


async def test_nothing_works_while_the_bucket_is_down_and_everything_once_it_is_back(
    store: Store,
) -> None:
    store.put_past_the_faults(made_up(SMALL))
    await store.faulty.down()
    for request in (store.bucket.head(KEY), store.bucket.open(KEY), store.bucket.check()):
        with pytest.raises(BucketUnavailable):
            await request
    await store.faulty.up()
    assert await store.bucket.head(KEY) is not None
    await store.bucket.check()


# --- what the owner got wrong -------------------------------------------------------------------


async def test_a_bucket_that_does_not_exist_is_named(store: Store) -> None:
    bucket = await open_bucket("s3://no-such-bucket", SETTINGS)
    with pytest.raises(BucketRefused, match=r"s3://no-such-bucket.*NoSuchBucket"):
        await bucket.check()
    await bucket.close()


async def test_an_endpoint_that_is_no_url_is_explained(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "not a url")
    with pytest.raises(BucketRefused, match="not a url"):
        await open_bucket(f"s3://{store.name}", SETTINGS)


@pytest.mark.blocking  # botocore looks for files of credentials while the client is made
async def test_missing_credentials_are_explained(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    bucket = await open_bucket(f"s3://{store.name}", SETTINGS)
    with pytest.raises(BucketRefused, match="AWS_ACCESS_KEY_ID"):
        await bucket.check()
    await bucket.close()


async def test_a_key_that_may_not_write_is_found_out_by_the_check(store: Store) -> None:
    store.faulty.faults.append(Fault(operation="CreateMultipartUpload", status=403))
    with pytest.raises(BucketRefused, match="cannot be written to"):
        await store.bucket.check()
