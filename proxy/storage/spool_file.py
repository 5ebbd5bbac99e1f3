"""The file of a clip on its way in, as all processes of a machine share it.

Whoever holds the flock writes; everybody else reads what is there. The lock falls free with its
holder, however that ends, and whoever takes it next goes on at the file's end. How a file stands
is said by its permissions, because these belong to the file itself: they hold for everyone who
has it open, whatever becomes of its name, cost no disk block, and change all at once.

    0600 growing ──▶ 0640 whole, verified
           │
           └───────▶ 0700 given up, because this disk has no room

Its owner may read and write it in every state: whoever opens it has to see which one that is.

Belongs here: these few system calls. Must not know: where the bytes come from, who waits for them.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from proxy.storage import keys
from proxy.storage.facts_file import read_facts
from proxy.storage.file_lock import try_lock

_GROWING, _WHOLE, _GIVEN_UP = 0o600, 0o640, 0o700
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Look:
    """How a file stands. `size` is in bytes."""

    size: int
    whole: bool
    given_up: bool
    linked: bool
    """Whether it has a name anywhere."""


def open_shared(path: Path) -> tuple[int, bool]:
    """Open or make the path's file; returns its descriptor, and whether its lock is ours now.

    A file that loses its name before it is locked is no use. One that was given up by a process
    that ended then grows again: there may be room by now. Blocks. Raises OSError.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _GROWING)
        try:
            locked = try_lock(fd)
            if not locked:
                return fd, False
            if is_named(fd, path):
                _begin(fd, path)
                return fd, True
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _begin(fd: int, path: Path) -> None:
    """Let nothing be true of the file any more that was said by a process which ended."""
    found = look(fd)
    if found.given_up:
        os.fchmod(fd, _GROWING)
    if not found.size:  # a new file may have the inode of the one that it was said of
        keys.spool_facts_path(path).unlink(missing_ok=True)


def lock_existing(path: Path) -> int | None:
    """Open a file and take its lock; None if another process has it, or the file is gone. Blocks.

    One that this user may not write to is somebody else's: no use either.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return None
    if try_lock(fd) and is_named(fd, path):
        return fd
    os.close(fd)
    return None


def look(fd: int) -> Look:
    """See how the file stands. Does not block.

    Try its lock first: with the lock in hand nobody changes it any more, so what is seen then is
    the last word of whoever had it.
    """
    seen = os.fstat(fd)
    return Look(
        size=seen.st_size,
        whole=bool(seen.st_mode & stat.S_IRGRP),
        given_up=bool(seen.st_mode & stat.S_IXUSR),
        linked=seen.st_nlink > 0,
    )


def mark_whole(fd: int) -> None:
    """Let all who follow the file have its last byte: the whole clip is verified."""
    os.fchmod(fd, _WHOLE)


def mark_given_up(fd: int) -> None:
    """Tell all who follow the file that there is no room for the rest of it on this disk."""
    os.fchmod(fd, _GIVEN_UP)


def remove(fd: int, path: Path) -> None:
    """Take the file's name away, and then what is said beside it. Blocks.

    In this order: whoever finds a file of which nothing is said takes it for unfinished. Nobody can
    give the name to another file as long as it is this one's and its lock is held; if it is another
    file's already, that one keeps it.
    """
    if is_named(fd, path):
        path.unlink(missing_ok=True)
    unsay(fd, path)


def unsay(fd: int, path: Path) -> None:
    """Remove what is said beside a file, unless it is said of another one of that name. Blocks."""
    beside = keys.spool_facts_path(path)
    said = read_facts(beside)
    if said is None or said.growth is None or said.growth.inode == inode(fd):
        beside.unlink(missing_ok=True)


def knock(path: Path) -> int | None:
    """Let the process that fills a clip know that somebody is watching it in this one. Blocks.

    Returns what has to be closed when nobody is any more: it holds a lock on what is said beside
    the file, shared with all other processes that do the same. None if nothing is said.
    """
    try:
        fd = os.open(keys.spool_facts_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    if try_lock(fd, shared=True):
        return fd
    os.close(fd)  # the filler is looking just now, and will again
    return None


def hears_knocking(path: Path) -> bool:
    """Whether any process has knocked and still holds on. Blocks."""
    try:
        fd = os.open(keys.spool_facts_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not try_lock(fd)
    finally:
        os.close(fd)


def is_named(fd: int, path: Path) -> bool:
    """Whether the path is this very file's name. Blocks."""
    try:
        return path.stat().st_ino == inode(fd)
    except FileNotFoundError:
        return False


def inode(fd: int) -> int:
    """What tells the file from others that had its name. Does not block."""
    return os.fstat(fd).st_ino


@cache
def boot_id() -> str:
    """What names the time since this machine started, after which unsynced bytes are no proof.

    Blocks. Where the system does not tell (proc(5)), this process is taken for all of that time.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return os.urandom(16).hex()
