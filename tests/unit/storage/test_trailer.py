"""A clip's facts behind its bytes: found by the file's length, and never believed of another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.media import boxes
from proxy.records import ClipFacts
from proxy.storage.spool_file import boot_id
from proxy.storage.trailer import SIZE, FactsTooLong, Trailer, read_trailer, write_trailer
from tests.fakes.fal import make_clip

LENGTH = 20_000
SHA256 = "5" * 64
FACTS = ClipFacts(
    request_id="a" * 128,
    length=LENGTH,
    etag="e" * 32,
    last_modified=datetime(2026, 10, 21, 7, 28, tzinfo=UTC),
    model="fal-ai/kling-video/v2/master",
)


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "clip"
    path.write_bytes(make_clip(LENGTH, 1))
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def test_what_is_written_is_read_and_the_clip_is_as_it_was(fd: int) -> None:
    write_trailer(fd, FACTS, SHA256)
    assert read_trailer(fd) == Trailer(FACTS, SHA256, boot_id())
    assert os.pread(fd, LENGTH, 0) == make_clip(LENGTH, 1)
    assert os.fstat(fd).st_size == LENGTH + SIZE


def test_the_file_is_still_an_mp4_of_whole_boxes(fd: int) -> None:
    write_trailer(fd, FACTS, SHA256)
    assert boxes.is_whole_file(fd, LENGTH + SIZE)


@pytest.mark.parametrize("size", [0, 1, SIZE, LENGTH, LENGTH + 1, LENGTH + SIZE - 1])
def test_a_file_that_was_cut_short_has_no_facts(fd: int, size: int) -> None:
    write_trailer(fd, FACTS, SHA256)
    os.ftruncate(fd, size)
    assert read_trailer(fd) is None


def test_a_file_that_has_grown_has_no_facts(fd: int) -> None:
    write_trailer(fd, FACTS, SHA256)
    os.pwrite(fd, b"?", LENGTH + SIZE)
    assert read_trailer(fd) is None


@pytest.mark.parametrize("at", [0, 4, 8, 24, 60, SIZE - 1])
def test_a_box_that_was_damaged_says_nothing_else(fd: int, at: int) -> None:
    write_trailer(fd, FACTS, SHA256)
    os.pwrite(fd, b"\xff", LENGTH + at)
    assert read_trailer(fd) is None


def test_facts_of_another_length_are_not_believed(fd: int) -> None:
    write_trailer(fd, FACTS, SHA256)
    box = os.pread(fd, SIZE, LENGTH)
    os.ftruncate(fd, LENGTH - 1)
    os.pwrite(fd, box, LENGTH - 1)
    assert read_trailer(fd) is None


def test_facts_that_do_not_fit_are_refused(fd: int) -> None:
    with pytest.raises(FactsTooLong):
        write_trailer(fd, replace(FACTS, model="m" * SIZE), SHA256)
    assert os.fstat(fd).st_size == LENGTH
