"""What processes know together: each its own seat, and figures that survive a process's end."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.errors import SettingsError
from proxy.storage import shared
from proxy.storage.shared import ADDED, SEATS, Shared


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def sit(run: Path, stack: ExitStack) -> Shared:
    seat = Shared(run)
    stack.callback(seat.close)
    return seat


def test_each_process_has_a_seat_of_its_own_and_leaves_it_free(
    tmp_path: Path, stack: ExitStack
) -> None:
    first, second = Shared(tmp_path), sit(tmp_path, stack)
    assert (first.seat, second.seat) == (0, 1)
    first.close()
    third = Shared(tmp_path)
    assert third.seat == 0
    third.close()


def test_there_are_only_so_many_seats(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "SEATS", 2)
    for _ in range(2):
        sit(tmp_path, stack)
    with pytest.raises(SettingsError, match="FIRSTVIEW_DATA_DIR"):
        Shared(tmp_path)
    assert SEATS > 16


def test_bytes_are_granted_up_to_the_limit_to_all_together(
    tmp_path: Path, stack: ExitStack
) -> None:
    first, second = sit(tmp_path, stack), sit(tmp_path, stack)
    assert first.reserve(60, 100)
    assert not second.reserve(41, 100)
    assert second.reserve(40, 100)
    assert first.reserved == second.reserved == first.used == 100
    first.claim(-60)
    assert second.used == 40
    first.claim(-60)  # never below none
    assert second.used == 40


def test_bytes_that_become_a_cached_clip_are_no_longer_spoken_for(
    tmp_path: Path, stack: ExitStack
) -> None:
    process = sit(tmp_path, stack)
    assert process.reserve(60, 100)
    process.count(7, 50, 1)
    process.moved(60)
    assert (process.reserved, process.cached, process.clips, process.used) == (0, 50, 1, 50)
    process.recount(7, 40, 2)
    assert (process.cached, process.clips) == (40, 2)


def test_what_a_killed_process_spoke_for_is_cleared_and_a_living_ones_is_not(
    tmp_path: Path, stack: ExitStack
) -> None:
    killed, living, janitor = (sit(tmp_path, stack) for _ in range(3))
    for process in (killed, living):
        assert process.reserve(30, 100)
        process.want(10)
    killed._seat_lock.give_up()  # as the kernel does
    janitor.clear_empty_seats()
    assert (janitor.used, janitor.wanted) == (30, 10)


def test_figures_outlive_all_processes(tmp_path: Path) -> None:
    first = Shared(tmp_path)
    first.count(0, 50, 1)
    first.uses[5] = 3
    assert first.reserve(10, 100)
    first.close()
    again = Shared(tmp_path)
    assert (again.cached, again.reserved, again.uses[5]) == (50, 0, 3)
    again.close()


def test_added_clips_are_heard_of_in_order(tmp_path: Path, stack: ExitStack) -> None:
    first, second = sit(tmp_path, stack), sit(tmp_path, stack)
    for number in range(ADDED + 5):
        first.added(2**64 - 1 - number, number)
    assert second.added_count == ADDED + 5
    assert second.added_at(ADDED + 4) == (2**64 - 1 - ADDED - 4, ADDED + 4)


def test_without_room_for_shared_memory_a_process_keeps_to_itself(
    tmp_path: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    first, second = sit(tmp_path, stack), sit(tmp_path, stack)
    assert first.reserve(60, 100)
    assert (first.used, second.used) == (60, 0)
