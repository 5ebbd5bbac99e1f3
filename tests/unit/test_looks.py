"""Looks at what is mostly in memory."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.looks import Looks


class Disk:
    """Tells the thread that looked; each look takes so many seconds of its clock."""

    def __init__(self) -> None:
        self.moment, self.takes = 100.0, 0.0001

    def now(self) -> float:
        return self.moment

    def look(self) -> int:
        self.moment += self.takes
        return threading.get_ident()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def test_a_quick_disk_is_looked_at_on_the_loop(threads: ThreadPoolExecutor) -> None:
    disk = Disk()
    looks = Looks(disk.now)
    for _ in range(3):
        assert await looks.take(threads, disk.look) == threading.get_ident()


async def test_after_a_slow_look_threads_look_for_a_while(threads: ThreadPoolExecutor) -> None:
    disk = Disk()
    looks = Looks(disk.now)
    disk.takes = 0.05
    assert await looks.take(threads, disk.look) == threading.get_ident()
    assert await looks.take(threads, disk.look) != threading.get_ident()
    disk.moment += 1.0
    assert await looks.take(threads, disk.look) == threading.get_ident()


async def test_a_look_that_fails_slowly_counts_as_slow() -> None:
    disk = Disk()
    looks = Looks(disk.now)

    def fail() -> None:
        disk.moment += 5.0
        raise OSError

    with contextlib.suppress(OSError):
        looks.here(fail)
    assert looks.is_slow


async def test_the_loop_is_free_while_a_slow_disk_is_looked_at(threads: ThreadPoolExecutor) -> None:
    disk, go_on = Disk(), threading.Event()
    looks = Looks(disk.now)
    disk.takes = 1.0
    looks.here(disk.look)
    looking = asyncio.create_task(looks.take(threads, lambda: go_on.wait(10)))
    await asyncio.sleep(0)
    assert not looking.done()
    go_on.set()
    assert await looking
