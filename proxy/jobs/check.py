"""The rolling check: stored clips are looked for in the bucket, so many a minute, round and round.

Belongs here: the pace, what an answer of the bucket means, and being sure before a clip is called
missing. Must not know: how a clip is brought back; the catalog files that job.

    one replica's turn ─▶ HEAD: the right size ─▶ the next
                           └── none, or another ─▶ the same row still? ─▶ a second look ─▶ noted
    bucket or database away, or access refused ─▶ nothing is said of any clip; on from there later
    one clip after the other missing ─▶ the bucket is doubted, not the clips
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from proxy.catalog.sweeping import Sweeping
from proxy.clock import Clock
from proxy.errors import BucketRefused, FirstviewError, LeaseLost
from proxy.jobs.turns import SOON, Turn, Turns
from proxy.records import Generation, Status
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.bucket import Bucket, ObjectInfo
from proxy.telemetry.metrics import Metrics

_NAME: Final = "check"
_PAGE: Final = 100
_MOST_MISSING: Final = 5
"""Clips in a row that the bucket may lack before it is doubted, not they."""
_MISSING, _WRONG_SIZE, _ALTERED = "missing", "wrong-size", "altered"

log = structlog.get_logger()


class Rows(Protocol):
    """What is asked and told of one clip; `proxy.catalog.generations.Generations` keeps it."""

    async def get(self, request_id: str) -> Generation | None:
        """Return the row of an id."""
        ...

    async def note_missing(self, request_id: str) -> Status | None:
        """Say that the bucket lacks a clip that is called stored; return its status now."""
        ...


class Checker:
    """Checks, by one replica at a time. `doubt` is told of ids that must not be served from memory.

    A round takes as long as `check_rate` makes it, but no less than `sweep_every`: a few clips are
    not asked for every second.
    """

    def __init__(
        self,
        sweeping: Sweeping,
        rows: Rows,
        bucket: Bucket,
        turns: Turns,
        settings: Settings,
        *,
        clock: Clock,
        metrics: Metrics,
        doubt: Callable[[str], None],
    ) -> None:
        """Take the catalog's sides, the bucket, and whose turn it is."""
        self._sweeping = sweeping
        self._rows = rows
        self._bucket = bucket
        self._turns = turns
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._doubt = doubt
        self._soon = min(SOON, settings.sweep_every)
        self._next = 0.0
        self._missing_in_a_row = 0

    async def run(self) -> None:
        """Check whenever it is due and nobody else does, for ever; with a rate of 0, never."""
        while self._settings.check_rate:
            try:
                await self.check()
            except FirstviewError as error:
                log.info("the check is put off", error=error.slug, detail=error.detail)
            except Exception:
                log.exception("the check crashed")
            await asyncio.sleep(self._soon / 2 + self._clock.jitter(self._soon / 2))

    async def check(self) -> bool:
        """Check from where it was to the end of a round; False if it is not our turn.

        Raises BucketError, CatalogError: the clip that was being looked at is looked at again.
        """
        try:
            async with self._turns.take(_NAME) as turn:
                if turn is None:
                    return False
                turn.due_in = self._soon
                await self._round(turn)
        except LeaseLost:
            log.info("another process has taken the check over")
        return True

    async def _round(self, turn: Turn) -> None:
        began = self._clock.monotonic()
        while page := await self._sweeping.stored_after(turn.place, _PAGE):
            for row in page:
                await self._pace()
                await self._look(row)
                turn.reached(self._sweeping.place_of(row))
        turn.reached(None)
        turn.due_in = max(0.0, self._settings.sweep_every - (self._clock.monotonic() - began))

    async def _pace(self) -> None:
        """Spread the clips of a minute evenly over it."""
        now = self._clock.monotonic()
        if self._next > now:
            await asyncio.sleep(self._next - now)
        self._next = max(now, self._next) + 60.0 / self._settings.check_rate

    async def _look(self, row: Generation) -> None:
        """Look at one clip. Raises BucketError, CatalogError."""
        wrong = _wrong(row, await self._bucket.head(keys.clip_key(row.request_id)))
        if wrong is not None:
            # The page is some time old: the id may have been re-pointed, the clip stored anew.
            present = await self._rows.get(row.request_id)
            if present is None or _version(present) != _version(row):
                return
            wrong = _wrong(row, await self._look_again(row.request_id))
        if wrong is None:
            self._missing_in_a_row = 0
            self._metrics.checked.labels("ok").inc()
            return
        if wrong == _MISSING:
            self._doubt_the_bucket()
        await self._note(row, wrong)

    def _doubt_the_bucket(self) -> None:
        """Call no more clips missing when one after the other is: it may be another bucket.

        Then one is noted in each try, until one is found again. Raises BucketRefused.
        """
        if self._missing_in_a_row >= _MOST_MISSING:
            self._missing_in_a_row = _MOST_MISSING - 1
            log.error("the bucket lacks one clip after the other", bucket=self._bucket.name)
            raise BucketRefused(
                "The bucket lacks one clip after the other: is FIRSTVIEW_BUCKET_URL still right?"
            )
        self._missing_in_a_row += 1

    async def _look_again(self, request_id: str) -> ObjectInfo | None:
        """Ask in another way: an S3 HEAD of a bucket that is gone says "not found", a listing not.

        A directory that is gone says so anyhow, and listing it would read every name.
        """
        key = keys.clip_key(request_id)
        if self._bucket.is_local:
            return await self._bucket.head(key)
        found = None
        async for info in self._bucket.list(key):  # of this key, and of what begins like it
            if info.key == key:
                found = info
        return found

    async def _note(self, row: Generation, wrong: str) -> None:
        status = await self._rows.note_missing(row.request_id)
        self._doubt(row.request_id)
        self._metrics.checked.labels(wrong).inc()
        if status is Status.LOST:
            self._metrics.lost.inc()
        log.error(
            "the bucket does not hold a clip as it was stored",
            request_id=row.request_id,
            found=wrong,
            bytes=row.content_length,
            status=status,
        )


def _version(row: Generation) -> tuple[object, ...]:
    return row.status, row.etag, row.content_length, row.mirrored_at


def _wrong(row: Generation, info: ObjectInfo | None) -> str | None:
    """What is wrong with an object, as far as its head tells."""
    if info is None:
        return _MISSING
    if row.content_length not in {None, info.size}:
        return _WRONG_SIZE
    return _ALTERED if info.altered else None
