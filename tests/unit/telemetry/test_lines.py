"""Lines are written by a thread: whole, in order, and nobody waits for who reads them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator

import pytest

from proxy.telemetry.lines import Lines

LINE = b"x" * 99


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(end)


def read_until(descriptor: int, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        data += os.read(descriptor, 1 << 16)
    return data


def test_lines_come_in_order_and_all_are_there_at_the_end(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    lines = Lines(writing)
    for number in range(300):
        lines.put(b"line %d" % number)
    assert lines.close()
    data = read_until(reading, b"line 299\n")
    assert data == b"".join(b"line %d\n" % number for number in range(300))


def test_a_pipe_that_nobody_reads_holds_up_nobody(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    lines, lost = Lines(writing, most=100), list[int]()
    lines.on_loss = lost.append
    began = time.monotonic()
    for _ in range(20_000):  # 2 MB
        lines.put(LINE)
    assert time.monotonic() - began < 5
    assert not lines.close(patience=0.05)
    # Somebody reads after all: what had found room is there, and the rest is counted.
    os.set_blocking(reading, False)
    end, read = time.monotonic() + 20, 0
    while read + sum(lost) < 20_000:
        assert time.monotonic() < end
        with contextlib.suppress(BlockingIOError):
            read += os.read(reading, 1 << 16).count(b"\n")
    assert sum(lost) > 10_000
    assert read + sum(lost) == 20_000


def test_writes_are_of_whole_lines_and_small_enough_for_a_pipe(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = pipe
    written = list[bytes]()
    gate = threading.Event()
    write = os.write

    def slow(descriptor: int, data: bytes) -> int:
        gate.wait(10)
        written.append(bytes(data))
        return write(descriptor, data)

    monkeypatch.setattr("proxy.telemetry.lines.os.write", slow)
    lines = Lines(writing)
    for _ in range(200):
        lines.put(LINE)
    gate.set()
    assert lines.close(10)
    assert len(read_until(reading, b"x\n")) == 200 * 100
    assert len(written) < 20
    assert all(len(data) <= 4096 and data.endswith(b"\n") for data in written)


def test_a_reader_who_left_costs_lines_and_nothing_else(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    lines = Lines(writing)
    for _ in range(10):
        lines.put(LINE)
    assert lines.close()
    assert lines._lost == 10


def test_a_pipe_that_does_not_block_gets_all_lines(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    lines = Lines(writing, most=10_000)
    for number in range(2000):
        lines.put(b"%d" % number + LINE)
    data = read_until(reading, b"1999" + LINE + b"\n")
    assert data.count(b"\n") == 2000
    assert lines.close()


def test_what_is_said_after_the_end_is_written_too(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    lines = Lines(writing)
    assert lines.close()
    lines.put(b"last words")
    assert os.read(reading, 100) == b"last words\n"
