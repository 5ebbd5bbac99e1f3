"""What the processes of one machine know together: a few words of memory, mapped from one file.

Belongs here: the layout, who may write which word, and taking a seat. Must not know: clips' files,
or what is decided by these figures.

A word is written either by one process alone (its seat's), or under one of the locks. So each is
right at any instruction at which a process may be killed: at most, one clip's bytes are counted
that are not there, until its folder is looked through again. All zeros is the state of a machine
that has nothing, so a new file needs nobody who prepares it. The kernel keeps the file over
restarts; whatever it says is corrected by the janitor's first round.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

import structlog

from proxy.errors import SettingsError
from proxy.storage import keys
from proxy.storage.file_lock import FileLock
from proxy.storage.forgets import FORGETS_BYTES, FORGETS_LAYOUT, Forgets

SEATS = 256
"""Processes that one data directory can have at once."""
ADDED = 4096
"""Clips that the janitor may be behind before it has to look at every folder again."""
SKETCH = 4 * 1024 * 1024
"""Counters of use, one byte each: several for each of a million clips, so that few share one."""
MOST_USES = 3
"""Uses of a clip that are told apart; more is all the same to the eviction."""

_WORD = 8
# Places of words.
_ADDED_COUNT = 0
_RESERVED = 1
_MOVED = _RESERVED + SEATS
_WANTED = _MOVED + SEATS
_FOLDER_BYTES = _WANTED + SEATS
_FOLDER_CLIPS = _FOLDER_BYTES + keys.CACHE_FOLDERS
_ADDED_RING = _FOLDER_CLIPS + keys.CACHE_FOLDERS
_WORDS = _ADDED_RING + 2 * ADDED
# Places of bytes.
_FORGETS_AT = _WORDS * _WORD
_SKETCH_AT = _FORGETS_AT + FORGETS_BYTES
_SIZE = _SKETCH_AT + SKETCH

_ORDER = 1
"""To be counted up when words change places or meaning, which no size shows."""
LAYOUT: Final = keys.short_hash(
    repr((_ORDER, SEATS, ADDED, SKETCH, keys.CACHE_FOLDERS, FORGETS_LAYOUT))
)
"""Stands for the layout in the file's name: processes of two releases, as there are while workers
are replaced by those of a new one, must not write into each other's words."""

log = structlog.get_logger()


class Shared:
    """One process's seat at the machine's common memory."""

    def __init__(self, run: Path) -> None:
        """Map the memory below `run` and take a free seat. Blocks.

        Raises OSError, and SettingsError when all seats are taken.
        """
        run.mkdir(parents=True, exist_ok=True)
        whole = memoryview(_mapped(keys.shared_path(run, LAYOUT)))
        self._words = whole[: _WORDS * _WORD].cast("Q")
        self.uses = whole[_SKETCH_AT:]
        """Uses of each clip, at its `slot`; whoever serves one counts, up to `MOST_USES`."""
        self._run = run
        self.cache_lock = FileLock(keys.lock_path(run, "cache"))
        """Held by whoever puts a clip into the cache or takes one out of it."""
        self.janitor_lock = FileLock(keys.lock_path(run, "janitor"))
        """Held, all the time, by the process whose janitor is at work."""
        self.upkeep_lock = FileLock(keys.lock_path(run, "upkeep"))
        """Held, once taken, by the process that compares what is cached with the catalog."""
        self._budget = FileLock(keys.lock_path(run, "budget"))
        self.seat, self._seat_lock = _take_seat(run)
        self.forgets = Forgets(whole[_FORGETS_AT:_SKETCH_AT], self.seat)
        self._clear(self.seat)

    def close(self) -> None:
        """Leave the seat; the memory stays for the others."""
        self._clear(self.seat)
        for lock in (
            self.cache_lock,
            self.janitor_lock,
            self.upkeep_lock,
            self._budget,
            self._seat_lock,
        ):
            lock.close()

    # -- the budget ---

    @property
    def used(self) -> int:
        """All bytes that count; more than that for a moment while a clip is moved in."""
        return self.reserved + self.cached

    @property
    def reserved(self) -> int:
        """Bytes that are spoken for by clips on their way in, and kept ones."""
        words = self._words
        return max(0, sum(words[_RESERVED:_MOVED]) - sum(words[_MOVED:_WANTED]))

    @property
    def cached(self) -> int:
        """Bytes of cached clips."""
        return sum(self._words[_FOLDER_BYTES:_FOLDER_CLIPS])

    @property
    def clips(self) -> int:
        """How many clips are cached."""
        return sum(self._words[_FOLDER_CLIPS:_ADDED_RING])

    def reserve(self, size: int, limit: int) -> bool:
        """Speak for bytes unless that makes more than `limit`; never waits.

        False also while another process is just asking: the lock is held for microseconds.
        """
        if not self._budget.take():
            return False
        try:
            fits = self.used + size <= limit
            if fits:
                self.claim(size)
        finally:
            self._budget.give_up()
        return fits

    def claim(self, size: int) -> None:
        """Speak for bytes, or give them back (less than none); by the event loop's thread only."""
        at = _RESERVED + self.seat
        self._words[at] = max(0, self._words[at] + size)

    def moved(self, size: int) -> None:
        """Bytes that were spoken for here are a cached clip's from now on; under `cache_lock`."""
        at = _MOVED + self.seat
        self._words[at] += size

    def want(self, size: int) -> None:
        """Say how much room is waited for here; by the event loop's thread only."""
        self._words[_WANTED + self.seat] = size

    @property
    def wanted(self) -> int:
        """The most that any process waits for."""
        return max(self._words[_WANTED:_FOLDER_BYTES])

    def clear_empty_seats(self) -> None:
        """Drop what processes had spoken for that were killed. Blocks for a moment."""
        for seat in range(SEATS):
            spoken = self._words[_RESERVED + seat] or self._words[_WANTED + seat]
            if seat == self.seat or not spoken:
                continue
            lock = FileLock(keys.lock_path(self._run, f"seat-{seat}"))
            if lock.take():
                self._clear(seat)
            lock.close()

    def _clear(self, seat: int) -> None:
        for at in (_RESERVED, _MOVED, _WANTED):
            self._words[at + seat] = 0

    # -- what is cached, all under `cache_lock` ---

    def count(self, folder: int, size: int, clips: int) -> None:
        """Count bytes and clips of a folder in or, below zero, out."""
        for at, change in ((_FOLDER_BYTES + folder, size), (_FOLDER_CLIPS + folder, clips)):
            self._words[at] = max(0, self._words[at] + change)

    def recount(self, folder: int, size: int, clips: int) -> None:
        """Say what a folder was found to hold."""
        self._words[_FOLDER_BYTES + folder] = size
        self._words[_FOLDER_CLIPS + folder] = clips

    def added(self, clip: int, size: int) -> None:
        """Let the janitor know of a new clip."""
        count = self._words[_ADDED_COUNT]
        at = _ADDED_RING + 2 * (count % ADDED)
        self._words[at], self._words[at + 1] = clip, size
        self._words[_ADDED_COUNT] = (count + 1) % 2**64

    @property
    def added_count(self) -> int:
        """How many clips were ever added."""
        return self._words[_ADDED_COUNT]

    def added_at(self, number: int) -> tuple[int, int]:
        """The hash and the bytes of one of the last `ADDED` clips that were added."""
        at = _ADDED_RING + 2 * (number % ADDED)
        return self._words[at], self._words[at + 1]


def slot_of(clip: int) -> int:
    """Where a clip's uses are counted."""
    return clip % SKETCH


def _mapped(path: Path) -> mmap.mmap:
    """Map the file. Without room for it this process keeps to itself: a full disk serves on.

    Its blocks are taken first, as memory that the disk has no room for would end the process.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        os.posix_fallocate(fd, 0, _SIZE)
        return mmap.mmap(fd, _SIZE)
    except OSError as error:
        log.warning("the processes of this machine cannot share memory", detail=str(error))
        return mmap.mmap(-1, _SIZE)
    finally:
        os.close(fd)


def _take_seat(run: Path) -> tuple[int, FileLock]:
    for seat in range(SEATS):
        lock = FileLock(keys.lock_path(run, f"seat-{seat}"))
        if lock.take():
            return seat, lock
        lock.close()
    raise SettingsError(f"FIRSTVIEW_DATA_DIR: {SEATS} processes have this directory already")
