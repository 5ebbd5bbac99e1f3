"""The sweep: what no webhook told us of is filed, what uploads left behind is cleared away.

Belongs here: what a sweep does in which order, when the next one is due, what is said of it. Must
not know: SQL, how uploads are aborted, how jobs are done.

    one replica's turn ─▶ unstored ─▶ pending ─▶ orphaned uploads ─▶ due again in `sweep_every`
         ▲                    └───────────┴──────────────┴── database or bucket away, a crash
         └──────────────────── soon after, at the place that was reached ◀───┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from proxy.catalog.sweeping import Filed, Sweeping
from proxy.clock import Clock
from proxy.errors import BucketError, FirstviewError, LeaseLost
from proxy.jobs.turns import SOON, Turn, Turns
from proxy.settings import Settings
from proxy.storage import keys
from proxy.telemetry.metrics import Metrics

ORPHANED_AFTER: Final = timedelta(days=1)
"""An upload that was begun so long ago is nobody's any more, on whatever machine it began."""
_NAME: Final = "sweep"
_UNSTORED, _PENDING, _UPLOADS = "unstored", "pending", "uploads"
_STAGES: Final = (_UNSTORED, _PENDING, _UPLOADS)

log = structlog.get_logger()


class Uploads(Protocol):
    """Who can abort uploads; `proxy.storage.bucket.Bucket` keeps it."""

    async def abort_uploads(self, prefix: str, older_than: timedelta) -> int:
        """Abort unfinished uploads below a prefix that were begun longer ago; return how many."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What one sweep did: jobs filed for either reason, uploads aborted, seconds taken.

    `aborted_uploads` is None when the bucket could not be asked: that is done soon after.
    """

    unstored: int
    pending: int
    aborted_uploads: int | None
    seconds: float


@dataclass(slots=True)
class _Counts:
    filed: dict[str, int] = field(default_factory=lambda: {_UNSTORED: 0, _PENDING: 0})
    aborted: int | None = 0


class Sweeper:
    """Sweeps, by one replica at a time."""

    def __init__(
        self,
        sweeping: Sweeping,
        uploads: Uploads,
        turns: Turns,
        settings: Settings,
        *,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Take the catalog's side, the bucket, and whose turn it is."""
        self._sweeping = sweeping
        self._uploads = uploads
        self._turns = turns
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._soon = min(SOON, settings.sweep_every)

    async def run(self) -> None:
        """Sweep whenever it is due and nobody else does, for ever."""
        while True:
            try:
                await self.sweep()
            except FirstviewError as error:
                log.warning("a sweep was put off", error=error.slug, detail=error.detail)
            except Exception:
                log.exception("a sweep crashed")
            await asyncio.sleep(self._soon / 2 + self._clock.jitter(self._soon / 2))

    async def sweep(self, *, force: bool = False) -> SweepReport | None:
        """Sweep once; None if somebody else is at it, or (unless `force`) it is not due.

        Begins where a sweep that was cut off had come to, and then reports on the rest alone.
        Raises CatalogUnavailable; what was done by then is done.
        """
        began = self._clock.monotonic()
        counts = _Counts()
        try:
            async with self._turns.take(_NAME, due_only=not force) as turn:
                if turn is None:
                    return None
                turn.due_in = self._soon
                await self._sweep(turn, counts)
        except LeaseLost:
            log.warning("a sweep took so long that another process has taken it over")
            return None
        report = SweepReport(
            unstored=counts.filed[_UNSTORED],
            pending=counts.filed[_PENDING],
            aborted_uploads=counts.aborted,
            seconds=self._clock.monotonic() - began,
        )
        log.info(
            "swept",
            unstored=report.unstored,
            pending=report.pending,
            aborted_uploads=report.aborted_uploads,
            seconds=round(report.seconds, 3),
        )
        return report

    async def _sweep(self, turn: Turn, counts: _Counts) -> None:
        stage, _, place = (turn.place or _UNSTORED).partition(" ")
        at = _STAGES.index(stage) if stage in _STAGES else 0
        now, settings = self._clock.now(), self._settings
        for stage in _STAGES[at:]:
            turn.reached(f"{stage} {place}")
            if stage == _UNSTORED:
                before = now - timedelta(seconds=settings.sweep_after)
                await self._file(stage, self._sweeping.file_unstored, before, turn, counts)
            elif stage == _PENDING and settings.fal_key is not None:  # else nobody could ask
                before = now - timedelta(seconds=settings.pending_after)
                await self._file(stage, self._sweeping.file_pending, before, turn, counts)
            elif stage == _UPLOADS:
                counts.aborted = await self._abort()
            place = ""
        if counts.aborted is not None:
            turn.reached(None)
            turn.due_in = settings.sweep_every

    async def _file(
        self,
        stage: str,
        file: Callable[[datetime, str | None], Awaitable[Filed]],
        before: datetime,
        turn: Turn,
        counts: _Counts,
    ) -> None:
        """File jobs, page by page, from the turn's place on."""
        place: str | None = (turn.place or "").partition(" ")[2]
        while place is not None:
            filed, place = await file(before, place)
            counts.filed[stage] += filed
            self._metrics.swept.labels(stage).inc(filed)
            if place is not None:
                turn.reached(f"{stage} {place}")

    async def _abort(self) -> int | None:
        """Abort what nobody sends any more, each time anew: a store may forget that it was asked.

        None if the bucket is away.
        """
        try:
            return await self._uploads.abort_uploads(keys.VIDEOS_PREFIX, ORPHANED_AFTER)
        except BucketError as error:
            log.info("cannot look for unfinished uploads yet", detail=error.detail)
            return None
