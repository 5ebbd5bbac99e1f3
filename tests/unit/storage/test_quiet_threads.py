"""Threads that give way, and what happens when more piles up than they can do."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.storage.quiet_threads import MOST_WAITING, NICENESS, QuietThreads


@pytest.fixture
def prompt() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_work_gives_way_to_the_rest_of_the_process(prompt: ThreadPoolExecutor) -> None:
    before = _niceness()
    with QuietThreads(prompt) as quiet:
        assert quiet.submit(_niceness).result() == NICENESS
    assert prompt.submit(_niceness).result() == _niceness() == before


def test_past_a_bound_work_is_not_put_off_any_longer(prompt: ThreadPoolExecutor) -> None:
    go_on = threading.Event()
    with QuietThreads(prompt) as quiet:
        waiting = [quiet.submit(go_on.wait) for _ in range(MOST_WAITING)]
        assert quiet.submit(_niceness).result() < NICENESS
        go_on.set()
        assert all(future.result() for future in waiting)
        assert quiet.submit(_niceness).result() == NICENESS
