"""The whole clip on this machine as a source, for a bucket that has lost it.

Belongs here: reading a clip's own file as if it came from afar. Must not know: why the bucket lacks
the clip, or which file is believed.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor
from dataclasses import dataclass

from proxy.delivery.sources import UpstreamSource
from proxy.errors import SourceUnavailable
from proxy.records import BodyHead, ByteStream, ClipFacts
from proxy.storage.open_files import OpenFile

_COPY_CHUNK = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class CopySource(UpstreamSource):
    """The whole clip on this machine, for a bucket that has lost it: upstream need not be asked.

    `file` has to stay open until the last stream is opened.
    """

    file: OpenFile
    executor: Executor
    tier: str = "disk"

    async def open(
        self,
        start: int = 0,
        stop: int | None = None,
        *,
        validator: str | None = None,  # noqa: ARG002 - a whole clip never changes
    ) -> ByteStream:
        """Open the copy."""
        length = self.file.facts.length
        start = max(0, length + start) if start < 0 else start
        end = length if stop is None else min(stop, length)
        head = BodyHead(
            start=start,
            stop=end,
            total=length,
            validator=f'"{self.file.facts.etag}"',
            last_modified=self.file.facts.last_modified,
        )
        return CopyStream(head, self.file.acquire(), end, self.executor)

    async def ask(self) -> ClipFacts:
        """The copy's own facts."""
        return self.file.facts

    def seekable(self) -> bool:
        """A file can be read anywhere."""
        return True


class CopyStream:
    """A whole clip's file, read a chunk at a time on the disk's threads; see `ByteStream`."""

    def __init__(self, head: BodyHead, file: OpenFile, stop: int, executor: Executor) -> None:
        """Own one use of the file."""
        self.head = head
        self._file: OpenFile | None = file
        self._at = head.start
        self._stop = stop
        self._executor = executor

    async def read(self) -> bytes:
        """See `ByteStream.read`."""
        if self._file is None:
            raise SourceUnavailable("the copy was closed while it was being read")
        wanted, at = min(_COPY_CHUNK, self._stop - self._at), self._at
        if wanted <= 0:
            return b""
        chunk = await self._file.read(
            self._executor, lambda fd, size: os.pread(fd, size, at), wanted
        )
        if not chunk:
            raise SourceUnavailable("the copy on the local disk was cut short")
        self._at += len(chunk)
        return chunk

    async def close(self) -> None:
        """See `ByteStream.close`."""
        if self._file is not None:
            self._file.release()
            self._file = None
