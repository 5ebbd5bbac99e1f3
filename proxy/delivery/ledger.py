"""The ledger: what the catalog is told of clips on their way, and in what order.

Belongs here: which event becomes which note, and asking whether an id still means its clip. Must
not know: the bucket, files, when anything is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from proxy.clock import Clock
from proxy.delivery import identity
from proxy.delivery.kept import Kept
from proxy.delivery.notes import Notes
from proxy.delivery.sources import BucketSource, Source, UpstreamSource
from proxy.errors import CatalogError, CorruptClip, FirstviewError, ObjectMissing, SourceRefused
from proxy.records import CLIP_CONTENT_TYPE, ClipFacts, Generation, MediaFacts, Status
from proxy.telemetry.metrics import Metrics


class Rows(Protocol):
    """What ownership tells the catalog; `proxy.catalog.generations.Generations` keeps it."""

    async def get(self, request_id: str) -> Generation | None:
        """Return the row of an id."""
        ...

    async def note_source(
        self,
        request_id: str,
        fal_url: str,
        facts: ClipFacts,
        content_type: str,
        *,
        asked: bool = True,
    ) -> object:
        """Fix a clip's facts, the first time that its source is seen; make sure of its job.

        `asked`: somebody is watching, so the job comes before others.
        """
        ...

    async def mark_stored(
        self,
        request_id: str,
        fal_url: str | None,
        facts: ClipFacts,
        sha256: str | None,
        at: datetime,
        *,
        media: MediaFacts | None = None,
    ) -> bool:
        """Say that the bucket has the clip; False if the id means another clip by now."""
        ...

    async def note_missing(self, request_id: str) -> Status | None:
        """Say that the bucket turned out not to have it."""
        ...

    async def want_mirrored(self, request_ids: Iterable[str]) -> None:
        """Make sure of the jobs of clips that nobody is bringing in any more."""
        ...

    async def note_refusal(self, request_id: str, fal_url: str, at: datetime) -> Status:
        """Count a refusal by the source."""
        ...


_SEEN_FOR = 1.0
"""Seconds after which facts are noted, and a job makes sure of the clip, before it is stored: most
clips are stored by then, and one write says everything. What a crash within that second leaves
behind is on the disk: `Ownership.load` finds it, and then there is a job for it."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is going to be said of a clip unless it is stored in a moment."""

    url: str
    facts: ClipFacts
    asked: bool
    timer: asyncio.TimerHandle


class Superseded(Exception):
    """The id means another clip by now; never leaves the delivery."""


class Ledger:
    """Tells the catalog. Notes are written beside the replies; `stored` is waited for."""

    def __init__(self, rows: Rows, clock: Clock, metrics: Metrics) -> None:
        """Take the catalog."""
        self._rows = rows
        self._clock = clock
        self._metrics = metrics
        self._notes = Notes()
        self._seen: dict[str, _Seen] = {}

    def source_seen(self, source: UpstreamSource, facts: ClipFacts, *, asked: bool) -> None:
        """Fix a clip's facts, unless it is stored in a moment anyway; `asked`: for a viewer."""
        self._said(facts.request_id)
        url = source.url
        timer = asyncio.get_running_loop().call_later(
            _SEEN_FOR, self._note_source, url, facts, asked
        )
        self._seen[facts.request_id] = _Seen(url, facts, asked, timer)

    def _note_source(self, url: str, facts: ClipFacts, asked: bool) -> None:
        self._said(facts.request_id)
        self._notes.add(
            facts.request_id,
            lambda: self._rows.note_source(
                facts.request_id, url, facts, CLIP_CONTENT_TYPE, asked=asked
            ),
        )

    def _said(self, request_id: str) -> None:
        """What was waiting to be said of a clip is said, or of no use any more."""
        waiting = self._seen.pop(request_id, None)
        if waiting is not None:
            waiting.timer.cancel()

    def refused(self, source: Source, error: FirstviewError) -> None:
        """Let the catalog count what the source or the bucket does not have."""
        if isinstance(source, UpstreamSource) and isinstance(error, SourceRefused):
            request_id, url, now = source.row.request_id, source.url, self._clock.now()
            self._notes.add(
                request_id,
                lambda: self._counting_lost(self._rows.note_refusal(request_id, url, now)),
            )
        elif isinstance(source, BucketSource) and isinstance(error, ObjectMissing | CorruptClip):
            row = source.row
            if row is not None and row.status is Status.STORED:
                if isinstance(error, CorruptClip):
                    self._metrics.checked.labels("corrupt").inc()
                else:
                    self._metrics.bucket_missing.inc()
                self._notes.add(
                    row.request_id,
                    lambda: self._counting_lost(self._rows.note_missing(row.request_id)),
                )

    async def _counting_lost(self, note: Awaitable[Status | None]) -> None:
        if await note is Status.LOST:
            self._metrics.lost.inc()

    def in_bucket(self, row: Generation | None, facts: ClipFacts, sha256: str | None) -> None:
        """The bucket has a clip, and `row` means that clip: let the catalog say so."""
        url, now = row.fal_url if row is not None else None, self._clock.now()
        self._notes.add(
            facts.request_id,
            lambda: self._rows.mark_stored(facts.request_id, url, facts, sha256, now),
        )

    async def wanted(self, request_ids: Iterable[str]) -> None:
        """Clips were on their way in when a process died. Raises CatalogError."""
        await self._rows.want_mirrored(request_ids)

    async def has_stored(self, request_id: str) -> bool:
        """Whether the catalog says that the bucket has a clip; False if it cannot be asked."""
        try:
            row = await self._rows.get(request_id)
        except CatalogError:
            return False
        return row is not None and row.status is Status.STORED

    async def settled(self, request_id: str) -> None:
        """Wait until all that was said of a clip is written, or lost."""
        await self._notes.settled(request_id)

    async def stored(self, kept: Kept, media: MediaFacts | None) -> None:
        """Say that a clip is stored, after all that was said of it before.

        Raises CatalogError, Superseded.
        """
        self._said(kept.facts.request_id)
        await self._notes.settled(kept.facts.request_id)
        meant = await self._rows.mark_stored(
            kept.facts.request_id,
            kept.fal_url,
            kept.facts,
            kept.sha256,
            self._clock.now(),
            media=media,
        )
        if kept.superseded or not meant:
            raise Superseded

    async def confirm(self, kept: Kept) -> None:
        """Raise Superseded if the id means another clip by now, CatalogError if nobody knows."""
        row = await self._rows.get(kept.facts.request_id)
        if kept.superseded or (row is not None and not identity.same_clip(row, kept.facts)):
            raise Superseded

    async def close(self, timeout: float) -> None:
        """Let the notes be written for `timeout` seconds, also those that were put off."""
        for waiting in list(self._seen.values()):
            self._note_source(waiting.url, waiting.facts, waiting.asked)
        await self._notes.close(timeout)
