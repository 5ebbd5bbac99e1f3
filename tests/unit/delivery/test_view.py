"""What a viewer holds, and that it lets go of all of it, once."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime

import pytest

from proxy.delivery.flights import Flight
from proxy.delivery.view import View, Wanted, discard
from proxy.errors import SourceUnavailable
from proxy.records import BodyHead, ByteStream, ClipFacts
from proxy.storage.open_files import OpenFile

FACTS = ClipFacts(
    request_id="clip", length=10, etag="e", last_modified=datetime(2026, 1, 1, tzinfo=UTC)
)


class Stream:
    """An open range."""

    head = BodyHead(start=5, stop=10, total=10)

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def read(self) -> bytes:
        return b""

    async def close(self) -> None:
        self.closed.set()


@pytest.mark.parametrize(
    ("wanted", "whole", "far"),
    [
        (Wanted(0), True, False),
        (Wanted(0, 10), False, False),
        (Wanted(100), False, False),
        (Wanted(101), False, True),
        (Wanted(101, 200), False, True),
        (Wanted(-1), False, True),
    ],
)
def test_what_is_far_is_asked_for_beside_the_fill(wanted: Wanted, whole: bool, far: bool) -> None:
    assert (wanted.is_whole, wanted.is_far(100)) == (whole, far)


def test_a_released_file_is_closed_once_nobody_else_reads_it() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    file = OpenFile(fd, FACTS, "disk")
    view = View(facts=FACTS, tier="disk", file=file.acquire())
    assert view.hit
    file.release()
    os.fstat(fd)
    view.release()
    view.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


async def test_a_released_view_gives_its_flight_up_once() -> None:
    flight = Flight("clip", (), by_range=False)
    flight.hold()
    view = View(facts=FACTS, tier="flight", flight=flight)
    view.release()
    view.release()
    assert flight._holders == 1


async def test_a_range_that_nobody_waited_for_is_closed_when_it_opens() -> None:
    stream = Stream()

    async def opening() -> ByteStream:
        return stream

    task = asyncio.create_task(opening())
    await task
    view = View(facts=FACTS, tier="upstream", early=task)
    view.release()
    await asyncio.wait_for(stream.closed.wait(), 5)


async def test_a_range_that_is_still_being_opened_is_not_waited_for() -> None:
    async def never() -> ByteStream:
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(never())
    await asyncio.sleep(0)
    discard(task)
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()


async def test_a_range_that_failed_is_nobodys_business() -> None:
    async def fail() -> ByteStream:
        raise SourceUnavailable

    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    discard(task)
    await asyncio.sleep(0)
