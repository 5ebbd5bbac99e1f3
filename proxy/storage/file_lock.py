"""A lock between the processes of one machine: an flock, often on a file of its own.

Belongs here: taking it and giving it up; the kernel does the latter for whoever dies. Must not
know: what it guards.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_TAKEN = {errno.EWOULDBLOCK, errno.EACCES, errno.EAGAIN}


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Take an open file's lock if nobody else has it; or, `shared`, if nobody has it alone.

    Does not block. Raises OSError.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def unlock(fd: int) -> None:
    """Let the next one have an open file's lock."""
    fcntl.flock(fd, fcntl.LOCK_UN)


class FileLock:
    """One process's view of a lock; threads that share this object take turns as well."""

    def __init__(self, path: Path) -> None:
        """Open the lock's file, made if it is not there. Raises OSError."""
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for a while. Blocks until it is free: not for the event loop."""
        with self._turn:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                self.give_up()

    def take(self) -> bool:
        """Take the lock if it is free; never waits. Not to be mixed with `held`."""
        return try_lock(self._fd)

    def give_up(self) -> None:
        """Let the next one have it."""
        unlock(self._fd)

    def close(self) -> None:
        """Give it up for good."""
        os.close(self._fd)
