"""The cached clips' files: the file system itself is the list of what is cached.

Belongs here: opening, moving in, removing and looking through them, each of which blocks. Must not
know: the budget's limit, or which clip has to go.

A clip's path follows from its id, so looking one up is one open, and a miss is its ENOENT. Whoever
changes a folder holds the cache's lock, so that what is counted is what is there: before a file
comes its bytes are counted, after it went they are no longer.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from proxy.records import ClipFacts
from proxy.storage import keys
from proxy.storage.shared import Shared
from proxy.storage.spool_file import boot_id
from proxy.storage.trailer import SIZE, Trailer, read_trailer, write_trailer


class CachedFiles:
    """All files below the cache's folder. Every call blocks."""

    def __init__(self, root: Path, shared: Shared) -> None:
        """Take the folder, and the memory in which they are counted."""
        self.root = root
        self._shared = shared

    def make(self) -> None:
        """Make the folder."""
        self.root.mkdir(parents=True, exist_ok=True)

    def path(self, clip: int) -> Path:
        """Where a clip's file is, if it is cached."""
        return self.root / keys.cached_name(clip)

    def has(self, request_id: str) -> bool:
        """Whether there is a file for an id."""
        return self.path(keys.clip_hash(request_id)).exists()

    def open(self, request_id: str, *, may_mend: bool = True) -> tuple[int, ClipFacts] | None:
        """Open a clip; None if it is not here. What is no whole clip is removed.

        Raises OSError if that cannot be told: the clip itself may be as good as ever; and
        BlockingIOError where something would have to be mended, and may not be.
        """
        clip = keys.clip_hash(request_id)
        try:
            fd = os.open(self.path(clip), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            found = read_trailer(fd)
            if not may_mend and (found is None or found.boot != boot_id() or not found.holds(fd)):
                raise BlockingIOError(errno.EAGAIN, "it would have to be mended")
            if found is None or not found.holds(fd):
                self._remove_inode(clip, os.fstat(fd).st_ino)
            elif found.facts.request_id == request_id:
                if found.boot != boot_id():
                    self._vouch(clip, fd, found)
                return fd, found.facts
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def move_in(self, path: Path, facts: ClipFacts, sha256: str, *, held: int, since: int) -> bool:
        """Make a whole, verified file the id's, for which `held` bytes were spoken for.

        False if the id was forgotten after `since`. Raises OSError, with everything as it was
        before but for the file's end.
        """
        _append_facts(path, facts, sha256)
        clip = keys.clip_hash(facts.request_id)
        target, size = self.path(clip), facts.length + SIZE
        with self._shared.cache_lock.held():
            if self._shared.forgets.has(facts.request_id, since):
                return False
            former = _size(target)
            self._shared.count(clip >> 56, size, 1)
            try:
                _replace(path, target)
            except OSError:
                self._shared.count(clip >> 56, -size, -1)
                raise
            if former is not None:
                self._shared.count(clip >> 56, -former, -1)
            self._shared.moved(held)
            self._shared.added(clip, size)
        return True

    def forget(self, request_id: str) -> None:
        """Remove an id's clip, and have every process of this machine forget it."""
        with self._shared.cache_lock.held():
            self._shared.forgets.add(request_id)
            self._unlink(keys.clip_hash(request_id))

    def disown(self, facts: ClipFacts) -> bool:
        """Forget the very clip of these facts; False if it is another's or nobody's by now."""
        clip = keys.clip_hash(facts.request_id)
        with self._shared.cache_lock.held():
            if _facts(self.path(clip)) != facts:
                return False
            self._shared.forgets.add(facts.request_id)
            self._unlink(clip)
        return True

    def evict(self, clip: int) -> int:
        """Remove a clip; returns the bytes of its file, 0 if it was gone already."""
        with self._shared.cache_lock.held():
            return self._unlink(clip)

    def look_through(self, folder: int) -> tuple[list[tuple[int, int, float]], int]:
        """Count a folder's clips anew, and clear away what is none.

        Returns the clips (hash, bytes, when they came) and how many had been added by then.
        """
        found = []
        with self._shared.cache_lock.held():
            for entry in _entries(self.root / keys.cache_folder(folder)):
                clip = keys.clip_of_cached(entry.name)
                stat = entry.stat(follow_symlinks=False)
                if clip is None or clip >> 56 != folder or stat.st_size <= SIZE:
                    _clear(Path(entry.path))
                else:
                    found.append((clip, stat.st_size, stat.st_mtime))
            self._shared.recount(folder, sum(size for _, size, _ in found), len(found))
            return found, self._shared.added_count

    def facts_in(self, folder: int) -> Iterator[ClipFacts]:
        """Facts of a folder's clips, as they are read."""
        for entry in _entries(self.root / keys.cache_folder(folder)):
            facts = _facts(Path(entry.path))
            if facts is not None:
                yield facts

    def _unlink(self, clip: int) -> int:
        path = self.path(clip)
        size = _size(path)
        if size is None:
            return 0
        path.unlink()
        self._shared.count(clip >> 56, -size, -1)
        return size

    def _vouch(self, clip: int, fd: int, found: Trailer) -> None:
        """Say that the clip has been compared since this machine started; its age stays."""
        before = os.fstat(fd)
        with contextlib.suppress(OSError):  # then it is compared again another time
            writing = os.open(self.path(clip), os.O_WRONLY | os.O_CLOEXEC)
            try:
                if os.fstat(writing).st_ino == before.st_ino:
                    write_trailer(writing, found.facts, found.sha256)
                    os.utime(writing, ns=(before.st_atime_ns, before.st_mtime_ns))
            finally:
                os.close(writing)

    def _remove_inode(self, clip: int, inode: int) -> None:
        with self._shared.cache_lock.held(), contextlib.suppress(FileNotFoundError):
            if self.path(clip).stat().st_ino == inode:
                self._unlink(clip)


def _append_facts(path: Path, facts: ClipFacts, sha256: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_size < facts.length:
            raise OSError("the file is shorter than its clip")
        os.ftruncate(fd, facts.length)
        write_trailer(fd, facts, sha256)
    finally:
        os.close(fd)


def _replace(path: Path, target: Path) -> None:
    try:
        path.replace(target)
    except FileNotFoundError:  # mostly the folder's first clip
        target.parent.mkdir(exist_ok=True)
        path.replace(target)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _facts(path: Path) -> ClipFacts | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = read_trailer(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    return None if found is None else found.facts


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        listing = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with listing:
        yield from listing


def _clear(path: Path) -> None:
    """Remove what is no clip: of an earlier layout, or a stranger's. The cache is ours alone."""
    with contextlib.suppress(OSError):
        path.unlink()
