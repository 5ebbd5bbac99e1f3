"""The spool's edges: locks, full disks, and being told to stop in the middle of a write."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.delivery.spool import Spool
from proxy.errors import CorruptClip, DiskExhausted, FirstviewError
from proxy.records import BodyHead, ClipFacts
from proxy.storage import spool_file
from proxy.storage.facts_file import Growth, write_facts
from proxy.storage.file_lock import try_lock

FACTS = ClipFacts(
    request_id="clip", length=10, etag="e" * 32, last_modified=datetime(2026, 1, 1, tzinfo=UTC)
)
HEAD = BodyHead(
    start=0, stop=10, total=10, validator='"tag"', md5=b"0" * 16, metadata={"some": "thing"}
)


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


async def test_the_second_who_claims_a_clip_follows_the_first(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    path = tmp_path / "clip.part"
    first = await Spool.claim(path, executor)
    await first.append(b"bytes")
    second = await Spool.claim(path, executor)
    assert (first.filling, second.filling) == (True, False)
    await second.remove()
    assert path.read_bytes() == b"bytes"
    first.release()
    third = await Spool.claim(path, executor)
    assert (third.filling, third.size) == (True, 5)
    for spool in (second, third):
        spool.release()


async def test_who_goes_on_with_a_clip_has_the_digest_of_all_of_it(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    path = tmp_path / "clip.part"
    first = await Spool.claim(path, executor)
    first.describe(FACTS, HEAD)
    await first.append(b"12345")
    follower = await Spool.claim(path, executor)
    said = await follower.beside()
    assert said is not None
    assert (said.facts, said.growth and said.growth.head) == (FACTS, HEAD)
    follower.announce(10)
    follower.follow(5)
    assert await follower.past(0) == 5
    first.release()
    assert try_lock(follower.fd)
    seen: list[bytes] = []
    follower.expect_digest(md5=True)
    await follower.take_over(lambda chunk: seen.append(bytes(chunk)))
    await follower.append(b"67890")
    assert follower.mark.readable == 9
    follower.verify()
    assert (seen, follower.mark.readable) == ([b"12345"], 10)
    assert (await follower.digest()).digest() == hashlib.sha256(b"1234567890").digest()
    assert follower.md5 == hashlib.md5(b"1234567890").digest()
    assert path.read_bytes() == b"1234567890"
    follower.release()


async def test_what_was_cut_short_on_the_disk_has_no_digest(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    spool = await Spool.claim(tmp_path / "clip.part", executor)
    await spool.append(b"1234567890")
    assert (await spool.proof(6)).digest() == hashlib.sha256(b"123456").digest()
    os.truncate(spool.path, 5)
    for hashing in (spool.digest(), spool.proof(6)):
        with pytest.raises(CorruptClip):
            await hashing
    spool.release()


async def test_a_new_fill_leaves_the_bytes_of_a_file_that_was_left_there_to_its_other_names(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    path, committed = tmp_path / "clip.part", tmp_path / "object"
    path.write_bytes(b"the bucket's")
    os.link(path, committed)
    left = await Spool.claim(path, executor)
    await left.remove()
    left.release()
    spool = await Spool.claim(path, executor)
    await spool.append(b"new")
    assert (path.read_bytes(), committed.read_bytes()) == (b"new", b"the bucket's")
    spool.release()


async def test_a_file_of_the_same_name_that_is_not_ours_is_not_removed(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    path = tmp_path / "clip.part"
    first = await Spool.claim(path, executor)
    await first.remove()
    second = await Spool.claim(path, executor)
    await first.remove()
    first.release()
    assert path.exists()
    second.release()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
async def test_a_disk_that_refuses_is_no_room(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    spool = await Spool.claim(tmp_path / "clip.part", executor)
    await spool.append(b"12345")

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        with pytest.raises(DiskExhausted):
            await spool.append(b"67890")
    assert spool.mark.written == 5
    spool.announce(10)
    assert spool.mark.readable == 5
    spool.release()


async def test_short_writes_are_continued(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.part"
    spool = await Spool.claim(path, executor)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:3], at))
    await spool.append(b"0123456789")
    assert path.read_bytes() == b"0123456789"
    assert spool.mark.written == 10
    spool.release()


async def test_a_write_that_is_cancelled_ends_before_its_file_is_closed(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the number of the descriptor could be another clip's when the bytes are written."""
    spool = await Spool.claim(tmp_path / "clip.part", executor)
    begun, go_on, real = threading.Event(), threading.Event(), os.pwrite

    def slowly(fd: int, data: bytes, at: int) -> int:
        begun.set()
        go_on.wait(10)
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", slowly)
    ended = asyncio.Event()

    async def fill() -> None:
        try:
            await spool.append(b"bytes")
        finally:
            ended.set()
            spool.release()

    filling = asyncio.create_task(fill())
    await asyncio.to_thread(begun.wait, 10)
    filling.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not ended.is_set()
    go_on.set()
    await asyncio.gather(filling, return_exceptions=True)
    assert filling.cancelled()
    assert (tmp_path / "clip.part").read_bytes() == b"bytes"


async def test_a_spool_whose_maker_is_cancelled_leaves_no_file_and_no_lock(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    path = tmp_path / "clip.part"
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        making = asyncio.create_task(Spool.claim(path, executor))
        await asyncio.sleep(0)
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
    executor.shutdown()
    assert not path.exists()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


async def test_a_file_whose_process_ended_having_given_it_up_can_be_filled_by_the_next(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    path = tmp_path / "clip.part"
    first = await Spool.claim(path, executor)
    first.give_up()
    assert path.stat().st_mode & 0o600 == 0o600  # or who is not root could never open it again
    follower = await Spool.claim(path, executor)
    assert spool_file.look(follower.fd).given_up
    for spool in (first, follower):
        spool.release()
    second = await Spool.claim(path, executor)
    assert second.filling
    assert not spool_file.look(second.fd).given_up
    second.release()


async def test_what_is_said_of_a_file_that_lost_its_name_is_not_said_of_the_next(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    path = tmp_path / "clip.part"
    first = await Spool.claim(path, executor)
    first.describe(FACTS, HEAD)
    await first.remove()  # the id was pointed elsewhere
    second = await Spool.claim(path, executor)
    second.describe(FACTS, HEAD)
    await second.append(b"12345")
    await first.append(b"12345")
    assert await second.beside() is not None
    for spool in (first, second):
        spool.release()


async def test_what_was_said_of_an_earlier_file_is_not_believed_of_a_new_one_with_its_inode(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    path = tmp_path / "clip.part"
    path.touch()
    growth = Growth(inode=path.stat().st_ino, boot="boot", head=HEAD)
    await asyncio.to_thread(write_facts, path.with_suffix(".json"), FACTS, growth=growth)
    spool = await Spool.claim(path, executor)
    await spool.append(b"12345")  # of a source that does not tell the clip's length
    assert await spool.beside() is None
    spool.release()


async def test_viewers_have_the_first_bytes_while_they_are_being_written(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    spool = await Spool.claim(tmp_path / "clip.part", executor)
    spool.announce(10)
    spool.lead(b"12345")
    assert (spool.ahead(0), spool.ahead(3), spool.ahead(5)) == (b"12345", b"45", b"")
    await spool.append(b"123")
    assert spool.ahead(0) == b"12345", "not all of them are in the file yet"
    await spool.append(b"45")
    assert (spool.ahead(0), spool.mark.readable) == (b"", 5)
    spool.release()


async def test_a_clip_that_has_come_whole_keeps_its_last_byte_until_it_is_verified(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    spool = await Spool.claim(tmp_path / "clip.part", executor)
    spool.announce(5)
    spool.lead(b"12345")
    assert spool.ahead(0) == b"1234"
    spool.release()


async def test_first_bytes_of_no_known_length_wait_for_it(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    spool = await Spool.claim(tmp_path / "clip.part", executor)
    spool.lead(b"12345")
    assert spool.ahead(0) == b""
    spool.release()


@pytest.mark.parametrize("error", [CorruptClip("wrong"), DiskExhausted("full")])
async def test_nobody_is_given_first_bytes_of_a_fill_that_failed(
    tmp_path: Path, executor: ThreadPoolExecutor, error: FirstviewError
) -> None:
    spool = await Spool.claim(tmp_path / "clip.part", executor)
    spool.announce(10)
    spool.lead(b"12345")
    spool.fail(error)
    assert spool.ahead(0) == b""
    spool.release()


async def test_what_a_viewer_had_from_memory_can_be_proven_though_it_never_reached_the_disk(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    spool = await Spool.claim(tmp_path / "clip.part", executor)
    spool.announce(10)
    spool.lead(b"12345")
    spool.fail(DiskExhausted("full"))
    assert (await spool.proof(4)).digest() == hashlib.sha256(b"1234").digest()
    with pytest.raises(CorruptClip):
        await spool.proof(6)
    spool.release()


async def test_a_disk_that_refused_bytes_is_given_no_others_in_their_place(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that broke meanwhile may begin anew, with other bytes than viewers have by now."""
    spool = await Spool.claim(tmp_path / "clip.part", executor)
    spool.announce(10)
    spool.lead(b"12345")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DiskExhausted):
            await spool.append(b"12345")
    with pytest.raises(DiskExhausted):
        await spool.append(b"abcde")
    assert (spool.size, spool.ahead(0)) == (0, b"12345")
    spool.release()
