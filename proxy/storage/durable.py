"""File operations that are still true after a power cut. Everything here blocks.

Belongs here: writing, linking and hashing with the right syncs. Must not know: buckets, keys.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

HASH_CHUNK = 1024 * 1024
NO_LINK_HERE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What link(2) answers when it can never work for these two places, whoever asks."""


def digest_of(fd: int, length: int | None = None) -> str:
    """SHA-256, hex, of the first `length` bytes of an open file, or of all."""
    digest = hashlib.sha256()
    offset, end = 0, os.fstat(fd).st_size if length is None else length
    while chunk := os.pread(fd, min(HASH_CHUNK, end - offset), offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()


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
