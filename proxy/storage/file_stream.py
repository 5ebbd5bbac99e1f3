"""Bytes of an open object of a directory bucket.

Belongs here: reading one file, from one byte to another. Must not know: how it was found.
"""

from __future__ import annotations

import os

from proxy.errors import BucketUnavailable, CorruptClip
from proxy.records import BodyHead
from proxy.storage.directory_files import Found
from proxy.storage.disk_threads import Disk

READ_CHUNK = 1024 * 1024


class FileStream:
    """An open object: reads one chunk at a time in a thread; see `ByteStream`."""

    def __init__(self, found: Found, start: int, stop: int | None, disk: Disk) -> None:
        """Take over the open file. Raises CorruptClip if no byte lies between start and stop."""
        total = found.info.size
        end = total if stop is None else min(stop, total)
        if start >= end and (start, stop) != (0, None):
            raise CorruptClip(f"the object in the bucket has {total} bytes, none from {start} on")
        self.head = BodyHead(
            start=start,
            stop=end,
            total=total,
            content_type=found.info.content_type,
            validator=f'"{found.info.etag}"',
            last_modified=found.info.last_modified,
            metadata=dict(found.info.metadata),
        )
        self._fd: int | None = found.fd
        self._offset = start
        self._end = end
        self._disk = disk

    async def read(self) -> bytes:
        """See `ByteStream.read`; BucketUnavailable if the file was cut short meanwhile."""
        if self._fd is None:
            raise BucketUnavailable("the object was closed while it was being read")
        wanted = min(READ_CHUNK, self._end - self._offset)
        if wanted == 0:
            return b""
        # A descriptor of its own: if this read is given up, the thread still needs one.
        fd = os.dup(self._fd)
        chunk = await self._disk.run(_read_and_close, fd, wanted, self._offset)
        if not chunk:
            raise BucketUnavailable("the object in the bucket was cut short while being read")
        self._offset += len(chunk)
        return chunk

    async def close(self) -> None:
        """Close the file; may be called again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _read_and_close(fd: int, size: int, offset: int) -> bytes:
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)
