"""Threads for work that nobody waits for: on a busy core they come after everything else.

Belongs here: their priority, and what happens when more piles up than they can do. Must not know:
what the work is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

NICENESS = 10
"""About a tenth of a core that others want too (sched(7)): work is put off, but never starved."""
MOST_WAITING = 32
"""Pieces of work beyond which it is no longer put off: they may not pile up for ever."""
_THREADS = 2

P = ParamSpec("P")
T = TypeVar("T")


class QuietThreads(Executor):
    """An executor whose threads give way; past `MOST_WAITING` the work goes to prompt ones."""

    def __init__(self, prompt: Executor) -> None:
        """Take the threads for what cannot be put off any longer, which stay the caller's."""
        self._prompt = prompt
        self._quiet = ThreadPoolExecutor(
            _THREADS, thread_name_prefix="quiet", initializer=_give_way
        )
        self._waiting = 0
        self._lock = threading.Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See `Executor.submit`."""
        with self._lock:
            if self._waiting >= MOST_WAITING:
                return self._prompt.submit(fn, *args, **kwargs)
            self._waiting += 1
        future = self._quiet.submit(fn, *args, **kwargs)
        future.add_done_callback(self._one_less)
        return future

    def _one_less(self, _: Future[T]) -> None:
        with self._lock:
            self._waiting -= 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `Executor.shutdown`."""
        self._quiet.shutdown(wait, cancel_futures=cancel_futures)


def _give_way() -> None:
    """Lower this one thread's priority: on Linux a thread's id stands for a process's here."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
