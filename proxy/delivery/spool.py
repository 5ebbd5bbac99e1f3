"""The spool: one local file of a clip on its way in, which only grows.

Belongs here: whose it is to write, writing it, and letting go of it. Must not know: where its bytes
come from, who reads it over what, or where it goes afterwards.

One process fills a clip, holding an flock on its file; in any other process of the machine the same
file is a spool that follows: its length is the watermark. When the lock falls free, whoever takes
it goes on at the file's end, in the same file, under the eyes of its viewers.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from proxy.delivery.tail import Tail
from proxy.errors import CorruptClip, DiskExhausted
from proxy.looks import Looks
from proxy.records import BodyHead, ClipFacts
from proxy.storage import keys, spool_file
from proxy.storage.durable import chunks_of
from proxy.storage.facts_file import Growth, StoredFacts, read_facts, write_facts
from proxy.storage.file_lock import unlock

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


class Spool(Tail):
    """One clip's growing file. Who fills it keeps the digest of what is in it."""

    def __init__(self, path: Path, fd: int, executor: Executor, *, filling: bool) -> None:
        """Take an open file; `filling`: its lock is ours. Use `claim`."""
        super().__init__(fd)
        self.path = path
        self.filling = filling
        """Whether this process is the one that writes."""
        self.is_needless = False
        """Whether the clip seemed to be in its last place already when this was claimed."""
        self._executor = executor
        self._along = False
        self._sha256 = hashlib.sha256()
        self._md5: hashlib._Hash | None = None
        self._digested = 0
        self._named = True
        self._refused = False
        self._knock: int | None = None
        self._beside: tuple[ClipFacts, BodyHead] | None = None

    @classmethod
    async def claim(
        cls,
        path: Path,
        executor: Executor,
        is_here: Callable[[], bool] = lambda: False,
        looks: Looks | None = None,
    ) -> Spool:
        """Open or make the file, and take its lock if no other process of this machine has it.

        `is_here` may block; its answer, once the lock is ours, is kept as `is_needless`. With
        `looks` this is done on the loop as long as the disk is quick. Raises DiskExhausted when
        there is no room.
        """
        opened = None
        if looks is not None:
            with contextlib.suppress(BlockingIOError):
                opened = looks.here(lambda: _open(path, is_here))
        fd, locked, is_needless = opened or await _open_in_thread(path, executor, is_here)
        spool = cls(path, fd, executor, filling=locked)
        spool.is_needless = is_needless
        return spool

    # -- the filler ---

    async def append(self, chunk: bytes | memoryview) -> None:
        """Write bytes at the end and let viewers have them.

        Raises DiskExhausted, and then the file has none of them for anybody, nor of any that come
        later: viewers may have these very ones from memory. Raises CorruptClip past the length.
        """
        if self._refused:
            raise DiskExhausted
        try:
            await self._in_thread(lambda: self._write(chunk))
        except DiskExhausted:
            self._refused = True
            raise
        self.mark.advance(len(chunk))
        if self.mark.written >= len(self._lead):
            self._lead = b""
        self._bell.ring()

    def _write(self, chunk: bytes | memoryview) -> None:
        if self._beside is not None and self._named:  # or it would be said of the name's next file
            self._write_beside(*self._beside)
        with disk_errors():
            view, offset = memoryview(chunk), self.mark.written
            while view:
                count = os.pwrite(self.fd, view, offset)
                view, offset = view[count:], offset + count
        if self._along:
            self._digest(chunk)

    def _digest(self, chunk: bytes | memoryview) -> None:
        self._sha256.update(chunk)
        if self._md5 is not None:
            self._md5.update(chunk)
        self._digested += len(chunk)

    def describe(self, facts: ClipFacts, head: BodyHead) -> None:
        """Say what the clip is to whoever follows or takes over; `head` is what its source said.

        It is written with the next bytes, before them.
        """
        self._beside = facts, head

    def _write_beside(self, facts: ClipFacts, head: BodyHead) -> None:
        growth = Growth(inode=spool_file.inode(self.fd), boot=spool_file.boot_id(), head=head)
        with disk_errors():
            write_facts(keys.spool_facts_path(self.path), facts, growth=growth)
        self._beside = None

    def verify(self) -> None:
        """Let viewers have the last byte, in every process: the clip is what it says it is."""
        self.mark.verify()
        spool_file.mark_whole(self.fd)
        self._bell.ring()

    def give_up(self) -> None:
        """Let whoever follows know that there is no room for the rest."""
        spool_file.mark_given_up(self.fd)

    def expect_digest(self, *, md5: bool) -> None:
        """Hash on the way, because the source says what must come out; before the first byte.

        Otherwise viewers do not wait for a digest that nothing can be compared with. `md5`: the
        source gave an MD5, which is computed as well.
        """
        self._along = True
        if md5:
            self._md5 = hashlib.md5(usedforsecurity=False)

    @property
    def md5(self) -> bytes | None:
        """MD5 of what has been written, if that is expected."""
        return None if self._md5 is None else self._md5.digest()

    @property
    def sha256(self) -> str | None:
        """Hex SHA-256 of what has been written, if all of it was hashed on the way."""
        return self._sha256.hexdigest() if self._digested == self.mark.written else None

    async def digest(self) -> hashlib._Hash:
        """A copy of the SHA-256 over what has been written so far; nothing is written meanwhile.

        What was not hashed on the way is read from the file. Raises DiskExhausted when that cannot
        be done.
        """
        written = self.mark.written
        if self._digested < written:
            await self._in_thread(lambda: self._catch_up(written))
        return self._sha256.copy()

    def _catch_up(self, size: int, each: Callable[[memoryview], None] | None = None) -> None:
        with disk_errors():
            for chunk in chunks_of(self.fd, self._digested, size):
                if each is not None:
                    each(chunk)
                self._digest(chunk)
        if self._digested < size:
            raise CorruptClip("the spool file was cut short")

    # -- from one process to the next ---

    @property
    def size(self) -> int:
        """Bytes that the file holds, whoever wrote them."""
        return spool_file.look(self.fd).size

    async def beside(self) -> StoredFacts | None:
        """What is said beside the file, if it is said of this very file."""
        path = keys.spool_facts_path(self.path)
        said = await self._in_thread(lambda: read_facts(path))
        mine = said is not None and said.growth and said.growth.inode == spool_file.inode(self.fd)
        return said if mine else None

    async def held(self) -> StoredFacts | None:
        """What can be gone on with: what is said beside the file, if that covers what it holds.

        Bytes that were written before this machine last started prove nothing, unless all of them
        have a digest.
        """
        said = await self.beside()
        if said is None or said.growth is None or self.size > said.facts.length:
            return None
        boot = await self._in_thread(spool_file.boot_id)
        return said if said.sha256 is not None or said.growth.boot == boot else None

    async def still_named(self) -> bool:
        """Whether the file still has its name, so that it is worth going on with."""
        return await self._in_thread(lambda: spool_file.is_named(self.fd, self.path))

    def follow(self, size: int) -> None:
        """Let viewers have what another process has written by now."""
        self.mark.follow(size)
        self._bell.ring()

    def found_whole(self, length: int) -> None:
        """Let viewers have the last byte, which another process has verified."""
        self.mark.announce(length)
        self.mark.follow(length)
        self.mark.verify()
        self._bell.ring()

    async def take_over(self, each: Callable[[memoryview], None]) -> None:
        """Hash what an earlier filler has written, as if it came now; `each` sees all of it too.

        Its lock has to be held. `each` runs in a thread, and may raise; what it is given
        holds until it returns.
        """
        self.filling = True
        size = self.size
        await self._in_thread(lambda: self._catch_up(size, each))
        self.mark.take_over(size)
        self._bell.ring()

    async def knock(self) -> None:
        """Let the process that fills the clip know that it is watched here."""
        if self._knock is None:
            self._knock = await self._in_thread(lambda: spool_file.knock(self.path))

    async def is_watched_elsewhere(self) -> bool:
        """See `Tail.is_watched_elsewhere`."""
        return await self._in_thread(lambda: spool_file.hears_knocking(self.path))

    def stop_knocking(self) -> None:
        """The clip is no other process's any more."""
        if self._knock is not None:
            os.close(self._knock)
            self._knock = None

    # -- its life ---

    async def remove(self) -> None:
        """Take the file's name away, once; viewers who still read it keep their bytes.

        Not again, as another fill may have made a new file of that name; and not by who follows.
        """
        if not self._named or not self.filling:
            return
        self._named = False
        await self._in_thread(lambda: spool_file.remove(self.fd, self.path))

    def let_go(self) -> None:
        """Let the next process have the lock; viewers here go on reading what there is."""
        if self.filling:
            self.filling = False
            unlock(self.fd)

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


async def _open_in_thread(
    path: Path, executor: Executor, is_here: Callable[[], bool]
) -> tuple[int, bool, bool]:
    opening = asyncio.get_running_loop().run_in_executor(executor, _open, path, is_here)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await asyncio.wait({opening})
        if opening.exception() is None:
            executor.submit(_undo, path, *opening.result()[:2])
        raise


def _open(path: Path, is_here: Callable[[], bool]) -> tuple[int, bool, bool]:
    with disk_errors():
        fd, locked = spool_file.open_shared(path)
        try:
            return fd, locked, locked and is_here()
        except BaseException:
            os.close(fd)
            raise


def _undo(path: Path, fd: int, locked: bool) -> None:
    if locked and not spool_file.look(fd).size:
        path.unlink(missing_ok=True)
    os.close(fd)
