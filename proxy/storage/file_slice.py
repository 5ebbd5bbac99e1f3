"""A part of a local file on its way to the bucket.

Belongs here: reading it a chunk at a time, and its MD5. Must not know: where it goes.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import CorruptClip
from proxy.storage.disk_threads import Disk
from proxy.storage.durable import chunks_of

CHUNK = 256 * 1024
"""Bytes of one slice in memory at once. Hundreds of slices may be on their way."""


@dataclass(frozen=True, slots=True)
class FileSlice:
    """`size` bytes of a file from `offset` on. The file is opened for each chunk and never kept."""

    path: Path
    offset: int
    size: int
    disk: Disk

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, in order. Raises CorruptClip if the file is too short."""
        end = self.offset + self.size
        for offset in range(self.offset, end, CHUNK):
            yield await self.disk.run(_read, self.path, offset, min(CHUNK, end - offset))

    async def md5(self) -> bytes:
        """MD5 of the bytes, 16 bytes. Raises CorruptClip if the file is too short."""
        return await self.disk.run(_md5, self.path, self.offset, self.size)


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        chunk = file.read(size)
    if len(chunk) != size:
        raise CorruptClip(f"the local file ends at {offset + len(chunk)}, before it is whole")
    return chunk


def _md5(path: Path, offset: int, size: int) -> bytes:
    digest, left = hashlib.md5(usedforsecurity=False), size
    with path.open("rb", buffering=0) as file:
        for chunk in chunks_of(file.fileno(), offset, offset + size):
            digest.update(chunk)
            left -= len(chunk)
    if left:
        raise CorruptClip(f"the local file ends {left} bytes before it is whole")
    return digest.digest()
