"""Looks: work that is mostly a look into memory, done on the event loop as long as that is so.

Belongs here: measuring what such work takes, and when it has to go to a thread. Must not know: what
is looked at.

A file's name or a row of the catalog is in the page cache as a rule, and told within some 10 to
100 us. A thread tells it no sooner: on a busy core its answer takes 300 to 1,300 us more, while
both hand the interpreter's lock to and fro (`docs/performance.md`). Where the disk is slow after
all, every viewer would wait for it here; so after one slow look all go to a thread for a while.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

_SLOW: Final = 0.02
"""Seconds. Less would blame the disk for what another thread's hold on the interpreter took."""
_REST: Final = 1.0
"""Seconds for which the loop does not look itself after that."""

T = TypeVar("T")


class Looks:
    """Looks on the loop, or where `is_slow` says so, elsewhere."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Begin by trusting the disk; `now` tells seconds that never go back."""
        self._now = now
        self._slow_until = float("-inf")

    @property
    def is_slow(self) -> bool:
        """Whether a look has taken long just now, so that the loop should not wait for another."""
        return self._now() < self._slow_until

    def here(self, look: Callable[[], T]) -> T:
        """Look on the loop, and remember if that was long.

        Raises BlockingIOError where it should not: looks are slow. A look that finds that it would
        have to wait may raise the same; either way a thread has the patience.
        """
        if self.is_slow:
            raise BlockingIOError(errno.EAGAIN, "the disk is slow just now")
        began = self._now()
        try:
            return look()
        finally:
            ended = self._now()
            if ended - began > _SLOW:
                self._slow_until = ended + _REST

    async def take(self, executor: Executor, look: Callable[[], T]) -> T:
        """Look here or in a thread. Whoever is cancelled does not hear of what the thread found."""
        try:
            return self.here(look)
        except BlockingIOError:
            return await asyncio.get_running_loop().run_in_executor(executor, look)
