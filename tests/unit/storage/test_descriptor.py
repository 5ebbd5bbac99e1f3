"""A descriptor that is shared: it keeps its number for as long as a thread reads by it."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from proxy.storage.descriptor import Descriptor
from tests.fixtures.origin import wait_for


def opened(path: Path) -> Descriptor:
    path.write_bytes(b"0123456789")
    return Descriptor(os.open(path, os.O_RDONLY))


def is_open(file: Descriptor) -> bool:
    try:
        os.fstat(file.fd)
    except OSError:
        return False
    return True


async def test_a_file_stays_open_until_the_thread_has_read_it_though_nobody_waits_any_more(
    tmp_path: Path,
) -> None:
    file = opened(tmp_path / "a")
    begun, go_on, read = threading.Event(), threading.Event(), list[bytes]()

    def slowly(fd: int, length: int) -> None:
        begun.set()
        go_on.wait(10)
        read.append(os.pread(fd, length, 0))

    async def is_closed() -> bool:
        return not is_open(file)

    reading = asyncio.create_task(file.read(None, slowly, 4))
    await asyncio.to_thread(begun.wait, 10)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    file.release()
    assert is_open(file)
    go_on.set()
    await wait_for(is_closed)
    assert read == [b"0123"]


async def test_a_read_that_fails_is_its_callers_to_hear_of(tmp_path: Path) -> None:
    file = opened(tmp_path / "a")

    def fail(_fd: int, _length: int) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await file.read(None, fail, 4)
    assert is_open(file)
    file.release()
    assert not is_open(file)
