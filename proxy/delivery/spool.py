"""The spool: one local file of a clip on its way in, which only grows.

Belongs here: writing it, waiting on it, and letting go of it. Must not know: where its bytes come
from, who reads it over what, or where it goes afterwards.

One fill writes, holding an flock on the file; any number of viewers read with `os.sendfile` at
offsets of their own. The file's length is the watermark, so another process can follow it too.
Nobody is woken by a timer: whoever has read everything waits on `past`, and every append wakes
all of them at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from proxy.delivery.watermark import Watermark
from proxy.errors import DiskExhausted, FirstviewError, SourceUnavailable

T = TypeVar("T")

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EMFILE}


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Map what the operating system says of a full or failing disk to DiskExhausted."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskExhausted(os.strerror(error.errno or 0)) from error
        raise


class Spool:
    """One clip's growing file. The digest and the watermark are kept with it."""

    def __init__(self, path: Path, fd: int, executor: Executor) -> None:
        """Take an open, locked, empty file; use `create`."""
        self.path = path
        self.fd = fd
        self.mark = Watermark()
        self._executor = executor
        self._sha256 = hashlib.sha256()
        self._md5: hashlib._Hash | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._users = 1
        self._named = True

    @classmethod
    async def create(cls, path: Path, executor: Executor) -> Spool:
        """Make the file and take its lock.

        Raises DiskExhausted when there is no room, SourceUnavailable when another process of
        this machine is filling the same clip.
        """
        opening = asyncio.get_running_loop().run_in_executor(executor, _create, path)
        try:
            fd = await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.wait({opening})
            if opening.exception() is None:
                executor.submit(_undo, path, opening.result())
            raise
        return cls(path, fd, executor)

    # -- the filler ---

    async def append(self, chunk: bytes) -> None:
        """Write bytes at the end and let viewers have them.

        Raises DiskExhausted with the file as it was before, CorruptClip past the length.
        """
        await self._in_thread(lambda: self._write(chunk))
        self.mark.advance(len(chunk))
        self._wake()

    def _write(self, chunk: bytes) -> None:
        with disk_errors():
            view, offset = memoryview(chunk), self.mark.written
            while view:
                count = os.pwrite(self.fd, view, offset)
                view, offset = view[count:], offset + count
        self._sha256.update(chunk)
        if self._md5 is not None:
            self._md5.update(chunk)

    def announce(self, length: int) -> None:
        """Say how long the clip is; viewers can be answered from here on."""
        self.mark.announce(length)
        self._wake()

    def verify(self) -> None:
        """Let viewers have the last byte: the clip is what it says it is."""
        self.mark.verify()
        self._wake()

    def fail(self, error: FirstviewError) -> None:
        """End the waiting of every viewer who has read all there is."""
        self.mark.fail(error)
        self._wake()

    def expect_md5(self) -> None:
        """Compute an MD5 too, because the source gave one; before the first byte is written."""
        self._md5 = hashlib.md5(usedforsecurity=False)

    @property
    def md5(self) -> bytes | None:
        """MD5 of what has been written, if `expect_md5` was called."""
        return None if self._md5 is None else self._md5.digest()

    def digest(self) -> hashlib._Hash:
        """A copy of the SHA-256 over what has been written so far."""
        return self._sha256.copy()

    async def remove(self) -> None:
        """Take the file's name away, once; viewers who still read it keep their bytes.

        Not again, as another fill may have made a new file of that name.
        """
        if not self._named:
            return
        self._named = False
        await self._in_thread(lambda: self.path.unlink(missing_ok=True))

    # -- the viewers ---

    async def past(self, position: int) -> int:
        """Wait until more than `position` bytes are readable, and return how many are.

        Raises the fill's failure when no more will come.
        """
        while (readable := self.mark.readable) <= position:
            if self.mark.failure is not None:
                raise self.mark.failure
            if self.mark.verified:
                break
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return readable

    async def ended(self) -> None:
        """Wait until the clip is whole or failed; raises nothing."""
        while not self.mark.ended:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # -- its life ---

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Do what blocks in a thread; whoever is cancelled waits for its end all the same.

        The descriptor is closed next, and its number may be another clip's a moment later.
        """
        doing = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait({doing})
            doing.exception()  # retrieved: there is nobody left to tell
            raise

    def acquire(self) -> None:
        """Keep the descriptor open for one more user."""
        self._users += 1

    def release(self) -> None:
        """Give the descriptor up; the last user closes it, and with it the lock."""
        self._users -= 1
        if self._users == 0:
            os.close(self.fd)


def _create(path: Path) -> int:
    """Open the path's file, empty and locked; one that loses its name before that is no use.

    One that has bytes loses it here: they may be a local bucket's object, or somebody's who reads.
    """
    with disk_errors():
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_named(fd, path):
                    if os.fstat(fd).st_size == 0:
                        return fd
                    path.unlink()
            except BlockingIOError as error:
                os.close(fd)
                msg = "another process of this machine is filling this clip"
                raise SourceUnavailable(msg) from error
            except OSError:
                os.close(fd)
                raise
            os.close(fd)


def _undo(path: Path, fd: int) -> None:
    path.unlink(missing_ok=True)
    os.close(fd)


def _is_named(fd: int, path: Path) -> bool:
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False
