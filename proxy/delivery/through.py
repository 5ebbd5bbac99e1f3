"""Through: a clip sent to one viewer straight from its source, because there is no room for it.

Belongs here: resuming and proving without a file to look back at. What a fill demands of a source
holds here as well: a body is continued only by what is proven to be the same clip, and the last
byte of a whole clip is sent only after everything that the source said of it turned out true. Must
not know: HTTP heads, or why there is no room.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from proxy.clock import Clock
from proxy.delivery.patience import Patience
from proxy.delivery.sources import Source
from proxy.delivery.viewer import ViewerSocket
from proxy.errors import CorruptClip, FirstviewError, SourceChanged, SourceUnavailable
from proxy.media.boxes import TopBoxes
from proxy.records import BodyHead, ByteStream
from proxy.settings import Settings


@dataclass(slots=True, kw_only=True)
class Held:
    """What the viewer has, or could have: bytes `start` up to `stop`, by their SHA-256."""

    start: int
    stop: int
    digest: hashlib._Hash

    @classmethod
    def nothing(cls, position: int) -> Held:
        """Begin at a position."""
        return cls(start=position, stop=position, digest=hashlib.sha256())

    def add(self, chunk: bytes) -> None:
        """Take the bytes that come next."""
        self.digest.update(chunk)
        self.stop += len(chunk)


class Through:
    """One stretch of a clip, from its source to one viewer."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        viewer: ViewerSocket,
        source: Source,
        *,
        length: int,
        validator: str | None,
        held: Held,
        stop: int,
        delivered: Callable[[int], None],
    ) -> None:
        """Send from where `held` ends up to `stop`, of a clip of `length` bytes.

        `delivered` is told of the bytes that come for it.
        """
        self._settings = settings
        self._clock = clock
        self._viewer = viewer
        self._source = source
        self._length = length
        self._validator = validator
        self._held = held
        self._stop = stop
        self._delivered = delivered
        whole = held.stop == 0 and stop == length and source.tier == "upstream"
        self._whole = _Whole() if whole else None

    async def send(self) -> None:
        """Send everything, resuming as a fill would. Raises what makes that impossible."""
        patience = Patience(self._settings, self._clock)
        while self._held.stop < self._stop:
            try:
                await self._send_once()
            except FirstviewError as error:
                if not error.retryable:
                    raise
                patience.progress(self._held.stop)
                await patience.wait(error)

    async def _send_once(self) -> None:
        held = self._held
        # Without a validator nothing but the bytes themselves ties two answers together.
        tied = self._validator is not None or held.start == held.stop
        if held.stop and tied and self._source.seekable():
            stream = await self._source.open(held.stop, self._stop, validator=self._validator)
        else:
            stream = await self._source.open()
        try:
            self._check_head(stream.head)
            rest = await self._skip(stream) if stream.head.start == 0 else b""
            await self._copy(stream, rest)
        finally:
            await stream.close()

    def _check_head(self, head: BodyHead) -> None:
        same = self._validator in {None, head.validator}
        lengths = {self._length} if head.start else {self._length, None}
        if not same or head.start not in {0, self._held.stop} or head.total not in lengths:
            msg = "the source changed between two requests for one clip"
            raise SourceChanged(msg)
        if self._whole is not None:
            self._whole.md5 = self._whole.md5 or head.md5

    async def _skip(self, stream: ByteStream) -> bytes:
        """Read past what the viewer has, comparing it; return what came after it."""
        held, seen, position = self._held, hashlib.sha256(), 0
        while position < held.stop:
            chunk = await stream.read()
            if not chunk:
                msg = "the source ended before the range began"
                raise SourceUnavailable(msg)
            begin, end = max(0, held.start - position), held.stop - position
            seen.update(chunk[begin:end])
            position += len(chunk)
            if end <= len(chunk):
                if seen.digest() != held.digest.digest():
                    msg = "the source's bytes changed between two requests for one clip"
                    raise SourceChanged(msg)
                return chunk[end:]
        return b""

    async def _copy(self, stream: ByteStream, chunk: bytes) -> None:
        while self._held.stop < self._stop:
            chunk = chunk or await stream.read()
            if not chunk:
                msg = "the source ended before the range did"
                raise SourceUnavailable(msg)
            chunk = chunk[: self._stop - self._held.stop]
            self._delivered(len(chunk))
            if self._whole is not None:
                self._whole.add(chunk, self._length)
            await self._viewer.send(chunk)
            self._held.add(chunk)
            chunk = b""


class _Whole:
    """What a source and an mp4 say of a whole clip, checked before the last byte is let go."""

    def __init__(self) -> None:
        self.md5: bytes | None = None
        self._seen = hashlib.md5(usedforsecurity=False)
        self._boxes = TopBoxes()
        self._position = 0

    def add(self, chunk: bytes, length: int) -> None:
        """Take the next bytes, before they are sent. Raises CorruptClip."""
        self._seen.update(chunk)
        self._boxes.feed(chunk)
        self._position += len(chunk)
        if self._boxes.end is not None and self._boxes.end > length:
            msg = f"the clip's own boxes make it {self._boxes.end} bytes, its source {length}"
            raise CorruptClip(msg)
        if self._position == length and self.md5 not in {None, self._seen.digest()}:
            msg = "the source's MD5 is not that of its bytes"
            raise CorruptClip(msg)
