"""A view: one viewer's hold on a clip that was located, wherever it is.

Belongs here: what the sender needs to know, and letting go of it. Must not know: HTTP, or how the
clip was found.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from proxy.delivery.flights import Flight
from proxy.delivery.sources import Source
from proxy.errors import FirstviewError
from proxy.records import ByteStream, ClipFacts
from proxy.storage.open_files import ServedFile


@dataclass(frozen=True, slots=True)
class Wanted:
    """The one range that a viewer asks for; `start` < 0 means that many last bytes."""

    start: int
    stop: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether this is the whole clip under another name (`bytes=0-`)."""
        return self.start == 0 and self.stop is None

    def is_far(self, seek_ahead: int) -> bool:
        """Whether it begins too far in to wait for a fill from the start."""
        return self.start < 0 or self.start > seek_ahead


@dataclass(slots=True, kw_only=True)
class View:
    """Where one viewer's bytes come from: a whole file, a flight's spool, or the source itself.

    `tier` is `disk`, `bucket`, `flight` or `upstream`; `collapsed` says that another viewer's
    fill was joined, `gated` that it is for this viewer alone. Must be released; a flight in it is
    held already.
    """

    facts: ClipFacts
    tier: str
    file: ServedFile | None = None
    flight: Flight | None = None
    early: asyncio.Task[ByteStream] | None = None
    collapsed: bool = False
    gated: bool = False

    @property
    def hit(self) -> bool:
        """Whether nobody had to be asked."""
        return self.file is not None

    def has(self, position: int) -> bool:
        """Whether bytes from there on are in memory, before any of them is in a file."""
        spool = None if self.flight is None else self.flight.spool
        return spool is not None and bool(spool.ahead(position))

    @property
    def source(self) -> Source | None:
        """Where a range beside the fill can be had."""
        return None if self.flight is None else self.flight.source or self.flight.sources[0]

    def release(self) -> None:
        """Let go of everything; the fill goes on."""
        if self.file is not None:
            self.file.release()
            self.file = None
        if self.early is not None:
            discard(self.early)
            self.early = None
        if self.flight is not None:
            self.flight.drop()
            self.flight = None


def discard(opening: asyncio.Task[ByteStream]) -> None:
    """Close a stream that nobody wants any more, as soon as it is open."""
    opening.cancel()
    opening.add_done_callback(_close_opened)


_closing: set[asyncio.Task[None]] = set()


def _close_opened(opening: asyncio.Task[ByteStream]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        task = asyncio.create_task(_close(opening.result()))
        _closing.add(task)
        task.add_done_callback(_closing.discard)


async def _close(stream: ByteStream) -> None:
    with contextlib.suppress(FirstviewError):
        await stream.close()
