"""A lane: the jobs of one kind, taken as fast as there are hands for them.

Belongs here: when the jobs table is asked for how many jobs. Must not know: what becomes of them,
or what other kinds do.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta

import structlog

from proxy.clock import Clock
from proxy.errors import FirstviewError
from proxy.jobs.backoff import backoff
from proxy.jobs.runs import POLLS_WHEN_AWAY, Handler, Queue, Runs
from proxy.jobs.verdict import Verdict
from proxy.records import JobKind
from proxy.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One kind of jobs: who does them, and how many at once."""

    kind: JobKind
    handler: Handler
    hands: int


class Lane:
    """Claims jobs of one kind and starts them."""

    def __init__(
        self,
        work: Work,
        *,
        queue: Queue,
        runs: Runs,
        settings: Settings,
        clock: Clock,
        owner: str,
    ) -> None:
        """Take the kind, and the name that jobs are leased under."""
        self._work = work
        self._queue = queue
        self._runs = runs
        self._settings = settings
        self._clock = clock
        self._owner = owner
        self._busy = 0
        self._failures = 0
        self._in_vain = 0
        self._not_before = 0.0
        self._closing = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look now, not at the next poll."""
        self._woken.set()

    def close(self) -> None:
        """Claim nothing more; `run` returns."""
        self._closing = True
        self.wake()

    async def run(self) -> None:
        """Take jobs until closed: when there may be some, and there is a hand free."""
        while not self._closing:
            self._woken.clear()
            wait: float | None = None  # until a job ends
            free = self._work.hands - self._busy
            if free > 0:
                wait = self._not_before - self._clock.monotonic()
                if wait <= 0:
                    wait = await self._take(free)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), wait)

    async def _take(self, free: int) -> float | None:
        """Start up to `free` jobs; return the seconds until looking again makes sense."""
        settings, now = self._settings, self._clock.monotonic()
        try:
            jobs = await self._queue.claim(
                self._work.kind,
                self._owner,
                free,
                timedelta(seconds=settings.job_lease),
                expiry_margin=timedelta(seconds=settings.expiry_margin),
            )
        except FirstviewError as error:
            return self._failed(error.slug)
        except Exception:
            log.exception("claiming jobs crashed", kind=self._work.kind.value)
            return self._failed("crashed")
        if self._failures:
            log.info("jobs can be claimed again", kind=self._work.kind.value)
            self._failures = 0
        if self._closing:
            with contextlib.suppress(FirstviewError):  # then their leases run out
                await self._queue.release(jobs)
            return None
        for job in jobs:
            self._busy += 1
            self._runs.start(job, self._work.handler, now, self._ended)
        if len(jobs) == free:
            return None
        return settings.jobs_poll / 2 + self._clock.jitter(settings.jobs_poll / 2)

    def _failed(self, why: str) -> float:
        """The jobs table cannot be asked: leave it alone for longer and longer, within bounds."""
        self._failures += 1
        poll = self._settings.jobs_poll
        longest = POLLS_WHEN_AWAY * poll
        wait = backoff(self._failures, base=poll, longest=longest, jitter=self._clock.jitter)
        self._not_before = self._clock.monotonic() + wait
        if self._failures == 1:
            log.warning("jobs cannot be claimed", kind=self._work.kind.value, error=why)
        return wait

    def _ended(self, said: Verdict | None) -> None:
        """A hand is free again.

        When as many jobs as there are hands met the same widespread trouble in a row, the next
        ones are not hurried into it: they would be postponed as fast as they can be claimed.
        """
        self._busy -= 1
        self._in_vain = self._in_vain + 1 if said is not None and said.widespread else 0
        if self._in_vain >= self._work.hands:
            self._in_vain = 0
            self._not_before = self._clock.monotonic() + self._settings.jobs_poll
        self.wake()
