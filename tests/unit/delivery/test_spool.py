"""The spool's edges: locks, full disks, and being told to stop in the middle of a write."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.delivery.spool import Spool
from proxy.errors import DiskExhausted, SourceUnavailable


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


async def test_a_second_filler_of_the_same_clip_is_refused(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    path = tmp_path / "clip.part"
    first = await Spool.create(path, executor)
    await first.append(b"bytes")
    with pytest.raises(SourceUnavailable):
        await Spool.create(path, executor)
    assert path.read_bytes() == b"bytes"
    first.release()
    second = await Spool.create(path, executor)
    assert path.read_bytes() == b""
    second.release()


async def test_a_new_fill_leaves_the_bytes_of_a_file_that_was_left_there_to_its_other_names(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    path, committed = tmp_path / "clip.part", tmp_path / "object"
    path.write_bytes(b"the bucket's")
    os.link(path, committed)
    spool = await Spool.create(path, executor)
    await spool.append(b"new")
    assert (path.read_bytes(), committed.read_bytes()) == (b"new", b"the bucket's")
    spool.release()


async def test_a_file_of_the_same_name_that_is_not_ours_is_not_removed(
    tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    path = tmp_path / "clip.part"
    first = await Spool.create(path, executor)
    await first.remove()
    second = await Spool.create(path, executor)
    await first.remove()
    first.release()
    assert path.exists()
    second.release()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE])
async def test_a_disk_that_refuses_is_no_room(
    tmp_path: Path, executor: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    spool = await Spool.create(tmp_path / "clip.part", executor)
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
    spool = await Spool.create(path, executor)
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
    spool = await Spool.create(tmp_path / "clip.part", executor)
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
        making = asyncio.create_task(Spool.create(path, executor))
        await asyncio.sleep(0)
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
    executor.shutdown()
    assert not path.exists()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
