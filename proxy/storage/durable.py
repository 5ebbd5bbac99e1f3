"""File operations that are still true after a power cut. Everything here blocks.

Belongs here: writing and linking with the right syncs, reading through and hashing. Must not know:
buckets, keys.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 512 * 1024
NO_LINK_HERE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What link(2) answers when it can never work for these two places, whoever asks."""


def chunks_of(fd: int, start: int, stop: int) -> Iterator[memoryview]:
    """The bytes of an open file from `start` up to `stop`, or to its end if that comes first.

    All chunks are read into the same memory: each holds until the next one is asked for. Raises
    OSError.
    """
    buffer = memoryview(bytearray(max(0, min(_CHUNK, stop - start))))
    while start < stop and (count := os.preadv(fd, [buffer[: stop - start]], start)):
        yield buffer[:count]
        start += count


def hash_of(fd: int, length: int | None = None) -> hashlib._Hash:
    """SHA-256 of the first `length` bytes of an open file, or of all; of what there is of them.

    Raises OSError.
    """
    seen = hashlib.sha256()
    for chunk in chunks_of(fd, 0, os.fstat(fd).st_size if length is None else length):
        seen.update(chunk)
    return seen


def digest_of(fd: int, length: int | None = None) -> str:
    """What `hash_of` gives, in hex."""
    return hash_of(fd, length).hexdigest()


def link_or_copy(source: Path, target: Path, *, may_link: bool = True) -> None:
    """Give a file a second name; copy it, with its times, where it cannot or may not be linked."""
    if may_link:
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in NO_LINK_HERE:
                raise
        else:
            return
    stat = source.stat()
    shutil.copyfile(source, target)
    os.utime(target, ns=(stat.st_mtime_ns, stat.st_mtime_ns))


def write_synced(path: Path, contents: bytes) -> None:
    """Write a new file and wait until its bytes are on the disk."""
    with path.open("xb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Wait until a directory's names are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
