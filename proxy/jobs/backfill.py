"""A backfill: clips that somebody wants owned now, asked for and followed until that is so.

Belongs here: a window of them at a time, and finding out what became of each. Must not know: which
job a clip needs (`asking.py`); who runs it, in this process or in another one; which clips are
meant; how progress is shown.

    clips ─▶ window ─▶ asked jobs ─▶ stored │ failed: dead, pointless, or three times in this run
               ▲                          │
               └──── room for more ───────┘

The window keeps memory flat however many clips there are. It also keeps viewers' wishes from
waiting behind a million others, because who asks first is served first.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from proxy.catalog.job_rows import NewJob
from proxy.clock import Clock
from proxy.errors import CatalogUnavailable, FirstviewError
from proxy.jobs.asking import Asking, Filing, Looking, Wishes, wish
from proxy.jobs.tally import Tally, why_not_stored
from proxy.jobs.verdict import Outcome
from proxy.records import Generation, Job, JobKind, Status

T = TypeVar("T")

WINDOW: Final = 1000
"""Clips that are asked for at once."""
PAGE: Final = 500
"""Clips that are added to the window in one go."""
TRIES: Final = 3
"""Failures in one run after which a clip is left to the workers."""
PATIENCE: Final = 120.0
"""Seconds for which nothing gets better before a backfill stops."""


class Clips(Protocol):
    """Which clips are meant, page by page."""

    async def next(self) -> Sequence[Generation] | None:
        """Return some more, at most `PAGE`; None: that was all.

        Raises CatalogUnavailable, and can then be asked again.
        """
        ...


@dataclass(slots=True)
class _Asked:
    """A clip in the window: the failures that its job had before, since when it is waited for."""

    failures: int
    since: float
    heard: str | None = None
    postponed: int | None = None


@dataclass(slots=True)
class _Trouble:
    """What no clip can do anything about, from its first to its latest sign."""

    began: float
    latest: float
    reason: str


class Backfill:
    """Asks for clips and follows them; `heard` is for whoever runs jobs in this process.

    `poll` is the time in seconds between two looks at the jobs, `patience` that for which nothing
    gets better before it stops. `revive`: dead jobs begin anew. `can_resolve`: fal can be asked
    for clips that are pending.
    """

    def __init__(
        self,
        tally: Tally,
        *,
        clock: Clock,
        poll: float,
        patience: float = PATIENCE,
        revive: bool = False,
        can_resolve: bool = False,
    ) -> None:
        """Begin with nothing; the tally is kept up to date."""
        self._tally = tally
        self._clock = clock
        self._poll = poll
        self._patience = patience
        self._revive = revive
        self._can_resolve = can_resolve
        self._open: dict[str, _Asked] = {}
        self._trouble: _Trouble | None = None
        self._emptied = asyncio.Event()

    def __len__(self) -> int:
        """How many clips are asked for and not settled."""
        return len(self._open)

    def heard(self, job: Job, outcome: Outcome, error: str | None) -> None:
        """Take note of a run of a job that ended in this process."""
        asked = self._open.get(job.request_id)
        if asked is None:
            return
        if job.kind is JobKind.MIRROR and outcome is Outcome.DONE:
            self._stored(job.request_id)
        elif error is not None:
            asked.heard = error
            if job.kind is JobKind.MIRROR and outcome is Outcome.POSTPONED:
                asked.postponed = job.attempts

    async def run(
        self,
        clips: Clips,
        jobs: Filing,
        looking: Looking,
        *,
        stop: asyncio.Event,
        wake: Callable[[], None],
    ) -> None:
        """Ask for all clips; return when each is settled, or `stop` is set, or all is in vain.

        `wake` is called when there are new jobs. What is in vain is said in the tally's `away`.
        """
        more = True
        look = functools.partial(self._look, jobs, looking)
        asking = Asking(
            jobs, looking, clock=self._clock, revive=self._revive, can_resolve=self._can_resolve
        )
        try:
            while not stop.is_set():
                while more and len(self) + PAGE <= WINDOW:
                    rows = await self._patiently(clips.next, stop)
                    more = rows is not None
                    needed = asking.sort_out(rows or (), self._tally)
                    prepare = functools.partial(asking.prepare, needed)
                    await self._ask(asking, await self._patiently(prepare, stop), stop)
                    wake()
                if not self._open and not more:
                    return
                await self._pause(stop)
                await self._patiently(look, stop)
                if self._is_in_vain():
                    return
        except CatalogUnavailable as error:
            if not stop.is_set():
                self._tally.away = _said(error)

    async def _ask(self, asking: Asking, wishes: Wishes, stop: asyncio.Event) -> None:
        now = self._clock.monotonic()
        for request_id, failures in wishes.failures.items():  # before there are jobs which end
            self._open[request_id] = _Asked(failures, now)
        await self._patiently(functools.partial(asking.file, wishes), stop)
        for request_id, reason in wishes.buried.items():
            self._tally.fail(request_id, reason)

    async def _patiently(self, work: Callable[[], Awaitable[T]], stop: asyncio.Event) -> T:
        """Ask a catalog that is away again and again. Raises CatalogUnavailable after a while."""
        began: float | None = None
        while True:
            try:
                return await work()
            except CatalogUnavailable as error:
                now = self._clock.monotonic()
                if began is None:
                    began = now
                    self._tally.trouble(_said(error))
                if stop.is_set() or now - began >= self._patience:
                    raise
                await self._pause(stop)

    async def _pause(self, stop: asyncio.Event) -> None:
        """Wait until it is time to look again, or there is nothing left to look at."""
        self._emptied.clear()
        waits = [asyncio.create_task(event.wait()) for event in (stop, self._emptied)]
        await asyncio.wait(waits, timeout=self._poll, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    # -- following ---

    async def _look(self, jobs: Filing, looking: Looking) -> None:
        """Settle what has come to an end, wherever it was run."""
        ids = list(self._open)
        found = await looking.jobs_of(ids)
        over, unasked = list[str](), list[NewJob]()
        for request_id in ids:
            alive = [job for job in found.get(request_id, ()) if job.dead_at is None]
            if not alive:
                over.append(request_id)
            elif request_id in self._open:
                mirror = next((job for job in alive if job.kind is JobKind.MIRROR), None)
                if mirror is not None and not mirror.asked:  # fal has said where the clip is
                    unasked.append(wish(JobKind.MIRROR, mirror))
                self._judge(request_id, mirror)
        rows = await looking.meanings(over)
        for request_id in over:
            if request_id in self._open:
                self._end(request_id, rows.get(request_id), found.get(request_id, ()))
        await jobs.file(unasked)

    def _judge(self, request_id: str, mirror: Job | None) -> None:
        """Wait no longer for a clip whose job goes on failing, or whose generation goes on."""
        asked, now = self._open[request_id], self._clock.monotonic()
        if mirror is None:
            if now - asked.since >= self._patience:
                reason = asked.heard or "clip-not-ready: its generation is not finished"
                self._fail(request_id, reason, unfinished=True)
            return
        asked.failures = min(asked.failures, mirror.attempts)
        reason = mirror.last_error or "unknown: its job failed"
        if mirror.attempts - asked.failures >= TRIES:
            self._fail(request_id, reason, unfinished=True)
        elif asked.postponed is not None:
            if asked.postponed == mirror.attempts:  # not counted: no other clip would fare better
                self._note_trouble(now, reason)
            asked.postponed = None

    def _note_trouble(self, now: float, reason: str) -> None:
        trouble = self._trouble
        is_new = trouble is None or now - trouble.latest > self._patience / 2
        if is_new:
            self._tally.trouble(reason)
        began = now if trouble is None or is_new else trouble.began
        self._trouble = _Trouble(began, now, reason)

    def _is_in_vain(self) -> bool:
        """Whether the same kind of trouble has been all there was for too long."""
        trouble = self._trouble
        if trouble is None or trouble.latest - trouble.began < self._patience:
            return False
        self._tally.away = trouble.reason
        return True

    def _end(self, request_id: str, row: Generation | None, jobs: Sequence[Job]) -> None:
        """Settle a clip whose jobs are done or dead."""
        if row is not None and row.status is Status.STORED:
            self._stored(request_id)
            return
        dead = next((job.last_error for job in jobs if job.last_error), None)
        self._fail(request_id, dead or self._open[request_id].heard or why_not_stored(row))

    def _stored(self, request_id: str) -> None:
        del self._open[request_id]
        self._tally.stored += 1
        self._trouble = None
        if not self._open:
            self._emptied.set()

    def _fail(self, request_id: str, reason: str, *, unfinished: bool = False) -> None:
        del self._open[request_id]
        self._tally.fail(request_id, reason, unfinished=unfinished)


def _said(error: FirstviewError) -> str:
    return f"{error.slug}: {error.detail}"
