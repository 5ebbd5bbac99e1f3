"""Bytes of an open object of a directory bucket.

Belongs here: reading one file, from one byte to another. Must not know: how it was found.
"""

from __future__ import annotations

import os

from proxy.errors import BucketUnavailable, CorruptClip
from proxy.records import BodyHead
from proxy.storage.descriptor import Descriptor
from proxy.storage.directory_files import Found
from proxy.storage.disk_threads import Disk, mapped_errors

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
        self._file: Descriptor | None = Descriptor(found.fd)
        self._offset = start
        self._end = end
        self._disk = disk

    async def read(self) -> bytes:
        """See `ByteStream.read`; BucketUnavailable if the file was cut short meanwhile."""
        if self._file is None:
            raise BucketUnavailable("the object was closed while it was being read")
        wanted = min(READ_CHUNK, self._end - self._offset)
        if wanted == 0:
            return b""
        offset = self._offset
        with mapped_errors():
            chunk = await self._file.read(
                self._disk.threads, lambda fd, size: os.pread(fd, size, offset), wanted
            )
        if not chunk:
            raise BucketUnavailable("the object in the bucket was cut short while being read")
        self._offset += len(chunk)
        return chunk

    async def close(self) -> None:
        """Close the file; may be called again."""
        if self._file is not None:
            self._file.release()
            self._file = None
