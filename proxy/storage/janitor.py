"""The janitor: one thread of one process of this machine, who keeps the cache within its budget.

Belongs here: who it is, knowing what is cached, and making room before it is needed. Must not know:
the event loop, or who needs the room. Which clip goes first is `eviction`'s.

Every process has this thread; the one that holds the lock is the janitor, and when it dies, another
takes over. It begins with a round through all folders, a slice at a time, so that viewers do not
notice; what comes meanwhile it hears of through shared memory. Clips that were found are evicted
before the round has ended, if room is needed.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from proxy.storage import keys
from proxy.storage.cached_files import CachedFiles
from proxy.storage.eviction import Eviction, Queue
from proxy.storage.free_space import free_bytes
from proxy.storage.shared import ADDED, Shared

_LOOK: Final = 0.05
"""Seconds between two looks at what other processes need."""
_SEATS: Final = 1.0
"""Seconds between two looks for processes that were killed, or for a janitor who was."""
_SLICE: Final = 0.005
"""Seconds of a round that are done at once; at least one folder."""
_SETTLING: Final = 1.0
"""Seconds until what was removed is free; more is not removed meanwhile on that account."""
_REST: Final = 3
"""Times as long as it worked that it rests after each slice of a round: the cores are viewers'."""
_AGES: Final = 32
"""Clips found are told apart by the logarithm of their age."""
_MARGIN_PART: Final = 64
_MARGIN_MOST: Final = 1024**3

log = structlog.get_logger()


def margin(max_bytes: int) -> int:
    """Bytes below the limit that are kept free ahead of need, so that fills need not wait."""
    return min(max_bytes // _MARGIN_PART, _MARGIN_MOST)


class Janitor:
    """The thread. `evicted` is told, in that thread, of each clip that had to go."""

    def __init__(
        self,
        files: CachedFiles,
        shared: Shared,
        *,
        max_bytes: int,
        keep_free: int,
        evicted: Callable[[], None],
    ) -> None:
        """Take the files; `start` it."""
        self._files = files
        self._shared = shared
        self._aim = max_bytes - margin(max_bytes)
        self._keep_free = keep_free
        self._evicted = evicted
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)
        self._eviction = Eviction(shared.uses)
        self._looked = self._added = 0
        self._counted: list[int] = []
        self._ages: list[Queue] = []
        self._seats_at = self._freed_at = -math.inf
        self.is_leader = False
        self.done = threading.Event()
        """Set once this process, as the janitor, has been through all folders."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def stop(self) -> None:
        """End, and let another process be the janitor. Blocks."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._shared.janitor_lock.give_up()

    def _run(self) -> None:
        while not self._stopping:
            try:
                pause = self._work()
            except OSError as error:
                log.warning("the janitor was held up", detail=str(error))
                pause = _SEATS
            except Exception:  # this thread has the lock: without it, nobody would make room
                log.exception("the janitor crashed, and begins anew")
                self._begin_round()
                pause = _SEATS
            self._wake.wait(pause)
            self._wake.clear()

    def _work(self) -> float:
        """Do one slice of whatever there is; returns the seconds to rest after it."""
        began, worked = time.monotonic(), time.thread_time()
        if not self.is_leader:
            if not self._shared.janitor_lock.take():
                return _SEATS / 4
            self.is_leader = True
            self._begin_round()
        while self._looked < keys.CACHE_FOLDERS and time.monotonic() - began < _SLICE:
            self._look_through(self._looked)
        self._hear_of_new()
        if began - self._seats_at >= _SEATS:
            self._seats_at = began
            self._shared.clear_empty_seats()
        self._make_room(began)
        if self._looked < keys.CACHE_FOLDERS:
            return (time.thread_time() - worked) * _REST
        return _LOOK

    # -- knowing what is there ---

    def _begin_round(self) -> None:
        self._eviction = Eviction(self._shared.uses)
        self._ages = [Queue() for _ in range(_AGES)]
        self._counted = []
        self._added = self._shared.added_count
        self._looked = 0

    def _look_through(self, folder: int) -> None:
        found, counted = self._files.look_through(folder)
        self._counted.append(counted)
        now = time.time()
        for clip, size, came in found:
            age = max(1.0, now - came)
            self._ages[min(_AGES - 1, int(math.log2(age)))].push(clip, size)
        self._looked += 1
        if self._looked == keys.CACHE_FOLDERS:
            self._restore()
            self.done.set()
            if self._shared.clips:  # of an empty cache nobody needs to be told at every start
                log.info("looked through the disk cache", clips=self._shared.clips)

    def _restore(self) -> None:
        """Have what was found so far evicted in the order in which it came, oldest first."""
        for queue in reversed(self._ages):
            self._eviction.restore(queue)

    def _hear_of_new(self) -> None:
        """Take up clips that came since; those that the round has found already are not new."""
        since, count = self._added, self._shared.added_count
        news = [self._shared.added_at(number) for number in range(max(since, count - ADDED), count)]
        if self._shared.added_count - since >= ADDED:  # some were, or are just being, written over
            self._begin_round()
            return
        for number, (clip, size) in enumerate(news, since):
            folder = clip >> 56
            if folder < self._looked and number >= self._counted[folder]:
                self._eviction.add(clip, size)
        self._added = count

    # -- making room ---

    def _make_room(self, now: float) -> None:
        wanted = self._shared.wanted
        with self._shared.cache_lock.held():  # nothing is counted twice
            used = self._shared.used
        excess = used + wanted - self._aim
        if wanted and now - self._freed_at >= _SETTLING:
            short = self._keep_free + wanted - free_bytes(self._files.root)
            if short > 0:
                self._freed_at = now
                excess = max(excess, short)
        if excess > 0 and self._looked < keys.CACHE_FOLDERS:
            self._restore()
        while excess > 0 and not self._stopping:
            victim = self._eviction.victim()
            if victim is None:
                if self._shared.clips and self._looked == keys.CACHE_FOLDERS:
                    self._begin_round()  # of those that are counted it has not heard
                return
            size = self._files.evict(victim[0])
            if size:
                self._evicted()
                excess -= size
