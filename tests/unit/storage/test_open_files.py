"""Open clips: closed once, by whoever needs them last, and never under a reader."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proxy.records import ClipFacts
from proxy.storage.open_files import OpenFile, OpenFiles

Make = Callable[[str], OpenFile]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def make(request_id: str) -> OpenFile:
        path = tmp_path / request_id
        path.write_bytes(request_id.encode())
        facts = ClipFacts(
            request_id=request_id,
            length=len(request_id),
            etag="e",
            last_modified=datetime(2026, 1, 1, tzinfo=UTC),
        )
        return OpenFile(os.open(path, os.O_RDONLY), facts, "disk")

    return make


def is_open(file: OpenFile) -> bool:
    try:
        os.fstat(file.fd)
    except OSError:
        return False
    return True


def test_the_last_user_closes_the_file(make: Make) -> None:
    file = make("a")
    assert file.acquire() is file
    file.release()
    assert is_open(file)
    file.release()
    assert not is_open(file)


def test_a_file_that_is_pushed_out_stays_open_for_who_reads_it(make: Make) -> None:
    files = OpenFiles(2)
    a, b, c = make("a"), make("b"), make("c")
    files.put("a", a)
    files.put("b", b)
    assert files.get("a") is a  # used last
    b.acquire()
    files.put("c", c)
    assert len(files) == 2
    assert files.get("b") is None
    assert is_open(b)
    b.release()
    assert not is_open(b)
    files.close()
    assert not is_open(a)
    assert not is_open(c)


def test_a_new_file_takes_the_place_of_the_old_one(make: Make) -> None:
    files = OpenFiles(2)
    old, new = make("a"), make("b")
    files.put("a", old)
    files.put("a", new)
    assert files.get("a") is new
    assert not is_open(old)
    files.close()


def test_dropping_what_is_not_there_is_no_error(make: Make) -> None:
    files = OpenFiles(1)
    files.drop("a")
    file = make("a")
    files.put("a", file)
    files.drop("a")
    assert len(files) == 0
    assert not is_open(file)


def test_files_that_lost_their_name_are_dropped_and_the_others_keep_their_order(
    make: Make, tmp_path: Path
) -> None:
    files = OpenFiles(4)
    made = {name: make(name) for name in "abcd"}
    for name, file in made.items():
        files.put(name, file)
    made["b"].acquire()
    for name in ("b", "d"):
        (tmp_path / name).unlink()
    for _ in range(6):
        files.drop_nameless(1)
    assert [name for name in "abcd" if files.get(name)] == ["a", "c"]
    assert is_open(made["b"])  # somebody reads it
    assert not is_open(made["d"])
    made["b"].release()


def test_a_look_at_a_file_is_no_use_of_it(make: Make) -> None:
    files = OpenFiles(2)
    files.put("a", make("a"))
    files.put("b", make("b"))
    assert files.get("b") is not None
    assert files.get("a") is not None  # so that b goes first
    for _ in range(2):
        files.drop_nameless(1)
    files.drop_nameless(1)
    files.put("c", make("c"))
    assert (files.get("b"), files.get("a") is not None) == (None, True)
