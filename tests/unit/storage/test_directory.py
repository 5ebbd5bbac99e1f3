"""What only a directory bucket promises: one copy, the owner's own files, a disk that may fail."""

import errno
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.errors import BucketError, BucketRefused, BucketUnavailable, ObjectConflict
from proxy.settings import Settings
from proxy.storage import directory_commit, durable, object_record
from proxy.storage.bucket import NewObject, ObjectInfo
from proxy.storage.directory import DirectoryBucket
from proxy.storage.opening import open_bucket

KEY = "videos/clip.mp4"
DATA = b"bytes of a clip" * 100


@pytest_asyncio.fixture
async def bucket(tmp_path: Path) -> AsyncIterator[DirectoryBucket]:
    bucket = await DirectoryBucket.at(tmp_path / "bucket")
    yield bucket
    await bucket.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "spool.part"
    path.write_bytes(DATA)
    return path


def new(data: bytes = DATA, **more: Any) -> NewObject:
    fields: dict[str, Any] = {"key": KEY, "content_type": "video/mp4", "metadata": {"m": "1"}}
    return NewObject(size=len(data), **(fields | more))


async def put(bucket: DirectoryBucket, source: Path, **more: Any) -> ObjectInfo:
    data = source.read_bytes()
    return await bucket.upload(new(data, **more), source).commit(hashlib.sha256(data).hexdigest())


def fails_with(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


async def test_the_committed_file_is_the_object_itself(
    bucket: DirectoryBucket, tmp_path: Path, source: Path
) -> None:
    await put(bucket, source)
    assert source.samefile(tmp_path / "bucket" / KEY)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.ENOTSUP])
async def test_a_file_that_cannot_be_linked_is_copied(
    bucket: DirectoryBucket,
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    monkeypatch.setattr(os, "link", fails_with(number))
    info = await put(bucket, source)
    assert (tmp_path / "bucket" / KEY).read_bytes() == DATA
    assert not source.samefile(tmp_path / "bucket" / KEY)
    assert await bucket.head(KEY) == info
    assert list((tmp_path / "bucket" / ".tmp").iterdir()) == []
    source.write_bytes(b"other")
    with pytest.raises(ObjectConflict):
        await put(bucket, source)


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.E2BIG, errno.ENOSPC])
async def test_metadata_goes_to_a_sidecar_where_it_cannot_be_an_attribute(
    bucket: DirectoryBucket,
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    monkeypatch.setattr(os, "setxattr", fails_with(number))
    info = await put(bucket, source)
    assert (tmp_path / "bucket" / ".meta" / f"{KEY}.json").exists()
    found = await bucket.head(KEY)
    assert found == info
    assert found.metadata["m"] == "1"


async def test_a_sidecar_of_another_file_is_no_metadata(tmp_path: Path, source: Path) -> None:
    """Peers 14."""
    bucket = await DirectoryBucket.at(tmp_path / "bucket", use_xattrs=False)
    ours = await put(bucket, source)
    path = tmp_path / "bucket" / KEY
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"something else, put there by the owner")
    foreign.rename(path)
    found = await bucket.head(KEY)
    assert found is not None
    assert found.metadata == {}
    assert found.etag != ours.etag
    await bucket.close()


@pytest.mark.parametrize("use_xattrs", [True, False])
async def test_a_file_that_was_changed_in_place_loses_its_metadata(
    tmp_path: Path, source: Path, use_xattrs: bool
) -> None:
    """Peers 14: the record of former bytes is not paired with the present ones."""
    bucket = await DirectoryBucket.at(tmp_path / "bucket", use_xattrs=use_xattrs)
    ours = await put(bucket, source)
    path = tmp_path / "bucket" / KEY
    path.write_bytes(b"edited")
    found = await bucket.head(KEY)
    assert found is not None
    assert (found.size, found.metadata) == (6, {})
    assert found.etag != ours.etag
    # An inode's number may be somebody else's by now; an attribute goes where its file goes.
    assert found.altered is use_xattrs
    await bucket.close()


async def test_a_file_that_was_put_in_the_place_of_ours_is_somebody_elses(
    bucket: DirectoryBucket, tmp_path: Path, source: Path
) -> None:
    ours = await put(bucket, source)
    assert not ours.altered
    path = tmp_path / "bucket" / KEY
    path.unlink()
    path.write_bytes(b"theirs")
    found = await bucket.head(KEY)
    assert found is not None
    assert not found.altered


async def test_a_file_that_the_owner_put_there_is_a_normal_object(
    bucket: DirectoryBucket, tmp_path: Path, source: Path
) -> None:
    path = tmp_path / "bucket" / "videos" / "mine.mp4"
    path.parent.mkdir()
    path.write_bytes(DATA)
    found = await bucket.head("videos/mine.mp4")
    assert found is not None
    assert (found.size, found.metadata, found.content_type) == (len(DATA), {}, None)
    assert found.etag
    stream = await bucket.open("videos/mine.mp4", etag=found.etag)
    assert await stream.read() == DATA
    await stream.close()
    assert (await put(bucket, source, key="videos/mine.mp4")).etag == found.etag


async def test_two_keys_of_one_file_keep_their_own_metadata(
    bucket: DirectoryBucket, source: Path
) -> None:
    await put(bucket, source, key="videos/a.mp4", metadata={"m": "a"})
    await put(bucket, source, key="videos/b.mp4", metadata={"m": "b"})
    for name in ("a", "b"):
        found = await bucket.head(f"videos/{name}.mp4")
        assert found is not None
        assert found.metadata["m"] == name


@pytest.mark.parametrize(
    "key",
    ["../x", "videos/../../x", "/etc/passwd", ".tmp/x", ".meta/x", "a//b", "a/./b", "", "a\0"],
)
async def test_a_key_that_would_leave_the_directory_is_refused(
    bucket: DirectoryBucket, source: Path, key: str
) -> None:
    with pytest.raises(BucketRefused):
        await bucket.head(key)
    with pytest.raises(BucketRefused):
        await bucket.open(key)
    with pytest.raises(BucketRefused):
        bucket.upload(new(key=key), source)
    with pytest.raises(BucketRefused):
        await bucket.delete(key)


async def test_a_disk_that_is_not_mounted_is_not_an_empty_bucket(
    bucket: DirectoryBucket, tmp_path: Path, source: Path
) -> None:
    """Peers 29: an outage never looks like "gone"."""
    await put(bucket, source)
    (tmp_path / "bucket").rename(tmp_path / "unmounted")
    (tmp_path / "bucket").mkdir()
    with pytest.raises(BucketUnavailable):
        await bucket.head(KEY)
    with pytest.raises(BucketUnavailable):
        await bucket.open(KEY)
    with pytest.raises(BucketUnavailable):
        await put(bucket, source)
    with pytest.raises(BucketUnavailable):
        await bucket.check()
    with pytest.raises(BucketUnavailable):
        await anext(bucket.list())
    assert list((tmp_path / "bucket").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, BucketUnavailable),
        (errno.EDQUOT, BucketUnavailable),
        (errno.EIO, BucketUnavailable),
        (errno.EACCES, BucketRefused),
        (errno.EROFS, BucketRefused),
    ],
)
async def test_a_failing_disk_leaves_nothing_and_the_commit_can_be_called_again(
    bucket: DirectoryBucket,
    tmp_path: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[BucketError],
) -> None:
    """Peers 37: a half-written object is never taken for whole."""
    upload = bucket.upload(new(), source)
    sha256 = hashlib.sha256(DATA).hexdigest()
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails_with(number))
        with pytest.raises(kind):
            await upload.commit(sha256)
    assert await bucket.head(KEY) is None
    assert list((tmp_path / "bucket" / ".tmp").iterdir()) == []
    assert (await upload.commit(sha256)).size == len(DATA)


async def test_everything_is_on_the_disk_before_it_is_visible(
    bucket: DirectoryBucket, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bucket" / "videos").mkdir()
    steps: list[str] = []
    fsync, link = os.fsync, os.link

    def watched_fsync(fd: int) -> None:
        steps.append("fsync " + Path(f"/proc/self/fd/{fd}").readlink().parent.name)
        fsync(fd)

    def watched_link(source: Path, target: Path) -> None:
        steps.append("link " + Path(target).parent.name)
        link(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "link", watched_link)
    await put(bucket, source)
    assert steps == ["link .tmp", "fsync .tmp", "link videos", "fsync bucket"]


async def test_only_old_temporary_files_are_swept(
    bucket: DirectoryBucket, tmp_path: Path, source: Path
) -> None:
    """Peers 7: what a killed process left behind goes, what is being written stays."""
    temp = tmp_path / "bucket" / ".tmp"
    (temp / "left-behind").write_bytes(b"x")
    # The age that counts is that of the link: the clip itself may have waited for days.
    old = time.time() - 7 * 86400
    os.utime(source, (old, old))
    os.link(source, temp / "being-linked")
    assert await bucket.abort_uploads("", timedelta(days=1)) == 0
    assert await bucket.abort_uploads("", timedelta(0)) == 2
    assert list(temp.iterdir()) == []


async def test_a_bucket_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BucketError):
        await DirectoryBucket.at(tmp_path / "file" / "bucket")


async def test_a_bucket_url_may_have_escaped_letters(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "my clips %"
    bucket = await open_bucket(path.as_uri(), Settings())
    assert isinstance(bucket, DirectoryBucket)
    assert bucket.name == path.as_uri()
    await put(bucket, source)
    assert (path / KEY).exists()
    await bucket.close()


def test_every_error_of_link_that_means_never_is_followed_by_a_copy() -> None:
    assert errno.EEXIST not in durable.NO_LINK_HERE
    assert errno.ENOSPC not in durable.NO_LINK_HERE


def test_a_record_that_is_no_json_is_no_record(tmp_path: Path, source: Path) -> None:
    os.setxattr(source, object_record.XATTR, b"\xff not json")
    sidecar = tmp_path / "sidecar"
    for text in (b"", b"\xff", b"{}", b"[1]", b'[{"inode": 1}]'):
        sidecar.write_bytes(text)
        with source.open("rb") as file:
            assert object_record.read_record(file.fileno(), sidecar) is None


async def test_a_file_that_takes_the_name_of_the_one_that_is_committed_never_becomes_visible(
    bucket: DirectoryBucket, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = durable.link_or_copy

    def link_or_copy(path: Path, *more: Any, **named: Any) -> None:
        path.unlink()
        path.write_bytes(DATA[:100])
        real(path, *more, **named)

    monkeypatch.setattr(directory_commit, "link_or_copy", link_or_copy)
    with pytest.raises(BucketUnavailable):
        await put(bucket, source)
    assert await bucket.head(KEY) is None
    assert source.stat().st_nlink == 1
