"""The body of one fill, across every time that it broke and was continued.

Belongs here: proving that what is being read is the clip that was announced at first. Must not
know: the viewers, the disk budget, or how long to be patient.
"""

from __future__ import annotations

import asyncio
import hashlib

from proxy.delivery.sources import Source
from proxy.delivery.spool import Spool
from proxy.errors import CorruptClip, NotAClip, SourceChanged, SourceTimeout, SourceUnavailable
from proxy.media.boxes import FTYP_BYTES, TopBoxes, is_clip_start
from proxy.records import BodyHead, ByteStream, ClipFacts, DirectStream
from proxy.storage import keys


class Body:
    """An open source; what it announced first is what counts."""

    def __init__(self, source: Source, head: BodyHead, stream: ByteStream | None = None) -> None:
        """Take what was announced first, and an open stream; use `open`.

        Without a stream this is what another process had begun to read: `recall` what it has got,
        then `reopen`.
        """
        self.source = source
        self._stream: ByteStream | None = None
        self._direct: DirectStream | None = None
        if stream is not None:
            self._read_from(stream)
        self._head = head
        self.total = head.total
        self._pending = b""
        self._offered: int | None = None
        self._position = 0
        self._boxes = TopBoxes()

    @classmethod
    async def open(cls, source: Source, max_bytes: int) -> Body:
        """Open a source and refuse what is no clip before anyone is answered.

        This waits for the first bytes, so that a source which fails early is still a proper
        error. Raises SourceError, BucketError, ObjectMissing.
        """
        stream = await source.open()
        body = cls(source, stream.head, stream)
        try:
            body._check_head(max_bytes)
            await body._check_first_bytes()
        except BaseException:
            await stream.close()
            raise
        return body

    @property
    def is_open(self) -> bool:
        """Whether somebody has opened the source, here."""
        return self._stream is not None

    @property
    def head(self) -> BodyHead:
        """What the source said of the whole clip."""
        return self._head

    @property
    def validator(self) -> str | None:
        """The strong ETag of the source, quoted."""
        return self._head.validator

    @property
    def md5(self) -> bytes | None:
        """MD5 of the whole clip, if the source gave one."""
        return self._head.md5

    @property
    def sha256(self) -> str | None:
        """Hex SHA-256 of the whole clip, if anybody wrote that down."""
        return self.source.expected_sha256(self._head)

    def facts(self, length: int) -> ClipFacts:
        """What the clip is, by what its source said."""
        return self.source.facts(self._head, length)

    def _check_head(self, max_bytes: int) -> None:
        head = self._head
        if head.start != 0:
            msg = "the source began in the middle"
            raise SourceChanged(msg)
        if self.total is None:
            self.total = self.source.expected_length
        if self.total is None and not head.framed:
            msg = "the source told no length and could end anywhere"
            raise NotAClip(msg)
        if self.total is None:
            return
        if not 0 < self.total <= max_bytes:
            msg = f"a clip of {self.total} bytes is not accepted"
            raise NotAClip(msg)
        self.facts(self.total)

    def _is_vouched_for(self) -> bool:
        """Whether it was verified before: what firstview itself has written somewhere."""
        metadata = self._head.metadata or {}
        return self.source.tier == "disk" or keys.META_ETAG in metadata

    async def _check_first_bytes(self) -> None:
        while len(self._pending) < FTYP_BYTES and (chunk := await self._read()):
            self._pending += chunk
        if not self._is_vouched_for() and not is_clip_start(self._pending):
            msg = f"the source's first {len(self._pending)} bytes are not those of an mp4"
            raise NotAClip(msg)

    def first(self, most: int) -> bytes:
        """The clip's first bytes, as many as have come by now; before any of them is taken."""
        return self._pending[:most]

    async def offer(self, buffer: memoryview) -> None:
        """Let the next bytes into a buffer; see `DirectStream.offer`. Raises what streams raise."""
        self._offered = None
        if not self._pending and self._direct is not None:
            await self._direct.offer(buffer)
            return
        if not self._pending:
            self._pending = await self._read()
        self._offered = count = min(len(buffer), len(self._pending))
        buffer[:count] = self._pending[:count]
        self._pending = self._pending[count:]

    def take(self, buffer: memoryview) -> memoryview:
        """Take the buffer back, cut to the bytes that are new; empty at the proper end.

        Raises what streams raise, and CorruptClip when the mp4 itself says that it is longer than
        its source does: a wrong length is framed as well as a right one.
        """
        count = self._offered
        if count is None and self._direct is not None:
            count = self._direct.take()
        chunk = buffer[:count]
        self.recall(chunk)
        return chunk

    def _read_from(self, stream: ByteStream) -> None:
        able: object = stream
        self._stream, self._direct = stream, able if isinstance(able, DirectStream) else None

    async def _read(self) -> bytes:
        if self._stream is None:
            raise SourceUnavailable("nobody is reading the source")
        return await self._stream.read()

    def recall(self, chunk: bytes | memoryview) -> None:
        """Check bytes that come next, whoever read them. Raises CorruptClip as `take` does."""
        if not self._is_vouched_for():
            self._check_boxes(chunk)

    def _check_boxes(self, chunk: bytes | memoryview) -> None:
        self._position += len(chunk)
        self._boxes.feed(chunk)
        length = self.total if chunk or self.total is not None else self._position
        if length is not None and self._boxes.end is not None and self._boxes.end > length:
            msg = f"the clip's own boxes make it {self._boxes.end} bytes, its source {length}"
            raise CorruptClip(msg)

    async def reopen(self, spool: Spool, timeout: float) -> None:
        """Open the rest of the clip, proven to continue what the spool holds.

        By range only where a strong validator ties both bodies together. Otherwise the whole
        body is asked for again, and what is held already is compared by digest while it is
        skipped. Raises SourceChanged when the clip is not the same any more, SourceTimeout after
        `timeout` seconds without an answer.
        """
        by_range = self.validator is not None and self.source.seekable()
        start = spool.mark.written if by_range else 0
        try:
            async with asyncio.timeout(timeout):
                stream = await self.source.open(
                    start, None, validator=self.validator if start else None
                )
        except TimeoutError as error:
            raise SourceTimeout from error
        try:
            self._check_continues(stream, start)
            pending = await _skip(stream, spool) if stream.head.start == 0 else b""
        except BaseException:
            await stream.close()
            raise
        self._read_from(stream)
        self._pending = pending

    def _check_continues(self, stream: ByteStream, start: int) -> None:
        head = stream.head
        if head.validator != self.validator:
            msg = "the source's ETag changed while it was being read"
            raise SourceChanged(msg)
        if head.total not in {self.total, self._head.total} or head.start not in {0, start}:
            msg = f"resumed at {start} of {self.total}, got {head.start} of {head.total}"
            raise SourceChanged(msg)

    async def close(self) -> None:
        """Let go of the connection; may be called again."""
        if self._stream is not None:
            await self._stream.close()


async def _skip(stream: ByteStream, spool: Spool) -> bytes:
    """Read past what the spool holds; return what came after it. Raises SourceChanged."""
    left, rest, seen = spool.mark.written, b"", hashlib.sha256()
    while left:
        chunk = await stream.read()
        if not chunk:
            msg = "the source is shorter than what it sent before"
            raise SourceChanged(msg)
        part, rest = chunk[:left], chunk[left:]
        seen.update(part)
        left -= len(part)
    if seen.digest() != (await spool.digest()).digest():
        msg = "the source's bytes changed while it was being read"
        raise SourceChanged(msg)
    return rest
