"""The owner: to whom a fill reports, and what it hands over.

Belongs here: the protocol between a fill and whoever owns clips. Must not know: either of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from proxy.delivery.flights import Flight
from proxy.delivery.sources import Source
from proxy.delivery.spool import Spool
from proxy.errors import FirstviewError
from proxy.records import BodyHead, ClipFacts
from proxy.storage.bucket import Upload
from proxy.storage.disk_cache import Reservation


@dataclass(slots=True, kw_only=True)
class Filled:
    """A whole, verified clip in its spool, ready to be handed over.

    `head` is what its source said of it; `sha256`, hex, is None if nobody has hashed it yet.
    """

    flight: Flight
    source: Source
    facts: ClipFacts
    head: BodyHead
    spool: Spool
    sha256: str | None
    reservation: Reservation
    upload: Upload | None


class Owner(Protocol):
    """Who takes verified clips over; see `proxy.delivery.own`."""

    async def seen(self, flight: Flight, source: Source, facts: ClipFacts) -> Upload | None:
        """Hear of a clip's facts before its first byte is sent; begin its upload, if any."""
        ...

    async def take(self, filled: Filled) -> None:
        """Own a verified clip from here on."""
        ...

    async def refused(self, source: Source, error: FirstviewError) -> None:
        """Hear of a source that does not have the clip (any more), or not as it should be."""
        ...

    def abandon(self, upload: Upload) -> None:
        """Abort an upload that `seen` began; viewers do not wait for the bucket."""
        ...
