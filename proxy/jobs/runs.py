"""Runs: the jobs that this process has in hand, and what is reported of each.

Belongs here: handing a job to its handler, and telling the jobs table what became of it. Must not
know: which jobs are taken, what a handler does, which error means what.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Protocol

import structlog

from proxy.clock import Clock
from proxy.errors import FirstviewError
from proxy.jobs import verdict
from proxy.jobs.backoff import backoff, pause
from proxy.jobs.verdict import Outcome, Verdict
from proxy.records import Job, JobKind
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics

Key = tuple[str, JobKind]
Handler = Callable[[Job], Awaitable[Verdict]]
"""Does one job and says what became of it; a FirstviewError that it raises is its verdict too."""
OnDone = Callable[[Job, Outcome, str | None], None]
"""Hears of every run that ended, and why if the job is not done."""

LONGEST_PAUSE: Final = 300.0
"""Seconds after which something is tried again that waits for a change outside."""
_SPREAD: Final = 4.0
"""Jobs that met the same trouble come back over this many times their wait, not all at once."""
POLLS_WHEN_AWAY: Final = 10.0
"""Longest wait, in polls, before a catalog that is away is asked again."""

log = structlog.get_logger()


class Queue(Protocol):
    """What is asked of the jobs table; `proxy.catalog.jobs.Jobs` keeps it.

    Every method raises CatalogUnavailable. What is reported of a job whose lease is somebody
    else's changes nothing and returns False.
    """

    async def claim(
        self,
        kind: JobKind,
        owner: str,
        limit: int,
        lease: timedelta,
        *,
        expiry_margin: timedelta,
    ) -> list[Job]:
        """Lease up to `limit` jobs that are due, the most urgent first."""
        ...

    async def extend(self, held: Sequence[Job], lease: timedelta) -> set[Key]:
        """Lease them for longer; return those that still were ours."""
        ...

    async def complete(self, job: Job) -> bool:
        """Remove a job that is done."""
        ...

    async def postpone(
        self, job: Job, *, wait: timedelta, error: str, counted: bool = True
    ) -> bool:
        """Let it be claimed again after `wait`."""
        ...

    async def bury(self, job: Job, error: str) -> bool:
        """Keep it, dead, until somebody retries it."""
        ...

    async def release(self, held: Sequence[Job]) -> object:
        """Give up leases, so that anybody may claim the jobs at once."""
        ...


@dataclass(slots=True, eq=False)
class Run:
    """One job in hand. `lease_ends` is monotonic; `handled` once its handler is through."""

    job: Job
    lease_ends: float
    began: float
    lost: bool = False
    handled: bool = False
    task: asyncio.Task[Verdict] | None = field(default=None, repr=False)

    @property
    def key(self) -> Key:
        """What the jobs table knows the job by."""
        return self.job.request_id, self.job.kind


class Runs:
    """All jobs that this process has in hand."""

    def __init__(
        self,
        queue: Queue,
        settings: Settings,
        clock: Clock,
        metrics: Metrics,
        on_done: OnDone | None = None,
    ) -> None:
        """Take the jobs table, and who else wants to hear of every run's end."""
        self._queue = queue
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._on_done = on_done
        self._running: dict[Key, Run] = {}
        self._tasks: set[asyncio.Task[Verdict]] = set()

    def start(
        self, job: Job, handler: Handler, claimed_at: float, ended: Callable[[Verdict | None], None]
    ) -> None:
        """Run a job that was leased at `claimed_at` (monotonic); `ended` hears its verdict.

        None is the verdict of a run that was broken off.
        """
        lease_ends = claimed_at + self._settings.job_lease
        run = Run(job, lease_ends, self._clock.monotonic())
        former = self._running.get(run.key)
        if former is not None:  # its lease ran out unnoticed, and we are who took it over
            self.lose(former)
        self._running[run.key] = run
        task = asyncio.create_task(self._run(run, handler), name=f"{job.kind} job {job.request_id}")
        run.task = task
        self._tasks.add(task)

        def done(task: asyncio.Task[Verdict]) -> None:
            self._tasks.discard(task)
            if self._running.get(run.key) is run:
                del self._running[run.key]
            broken_off = task.cancelled()
            crash = None if broken_off else task.exception()
            if crash is not None:
                log.error("a run crashed", request_id=job.request_id, exc_info=crash)
            ended(None if broken_off or crash is not None else task.result())

        task.add_done_callback(done)

    def held(self) -> list[Run]:
        """The runs whose leases have to be kept: those that are still being handled."""
        return [run for run in self._running.values() if not run.handled]

    def lose(self, run: Run) -> None:
        """Break off a run whose job is somebody else's by now, unless it is through already."""
        if not run.handled and not run.lost and run.task is not None:
            run.lost = True
            run.task.cancel()

    async def finish(self, timeout: float) -> None:
        """Let the runs end for `timeout` seconds."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout)

    async def cancel(self) -> list[Job]:
        """Break off all runs; return the jobs that nothing was reported of."""
        tasks = set(self._tasks)
        jobs = [run.job for run in self._running.values() if not run.lost]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return jobs

    # -- one run ---

    async def _run(self, run: Run, handler: Handler) -> Verdict:
        said: Verdict | None = None
        try:
            said = self._exhausted(run.job)
            if said is None:
                said = self._judged(run.job, await self._handle(run.job, handler))
            run.handled = True
            outcome = await self._report(run, said)
        except asyncio.CancelledError:
            self._note(run, Outcome.LOST_LEASE if run.lost else Outcome.CANCELLED, said)
            raise
        self._note(run, outcome, said)
        return said

    def _exhausted(self, job: Job) -> Verdict | None:
        """Bury what has already failed often enough: by taking its workers down with it."""
        if job.attempts < self._settings.job_attempts:
            return None
        return Verdict(outcome=Outcome.DEAD, error=job.last_error)

    @staticmethod
    async def _handle(job: Job, handler: Handler) -> Verdict:
        try:
            return await handler(job)
        except FirstviewError as error:
            return verdict.of(error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return verdict.of_crash(error)  # what it waited for was cancelled, it was not
        except Exception as error:
            log.exception("a job crashed", kind=job.kind, request_id=job.request_id)
            return verdict.of_crash(error)

    def _judged(self, job: Job, said: Verdict) -> Verdict:
        """Bury what has failed often enough, and settle how long the others wait."""
        if said.outcome is not Outcome.POSTPONED:
            return said
        settings, jitter = self._settings, self._clock.jitter
        if said.widespread:
            least = max(said.wait, settings.job_backoff)
            return replace(said, wait=least + jitter(_SPREAD * least))
        if not said.counted:
            age = (self._clock.now() - job.created_at).total_seconds()
            least, longest = max(said.wait, settings.job_backoff), settings.job_backoff_max
            wait = pause(age, least=least, longest=min(LONGEST_PAUSE, longest), jitter=jitter)
            return replace(said, wait=wait)
        if job.attempts + 1 >= settings.job_attempts:
            return replace(said, outcome=Outcome.DEAD)
        base, longest = settings.job_backoff, settings.job_backoff_max
        wait = backoff(job.attempts + 1, base=base, longest=longest, jitter=jitter)
        return replace(said, wait=max(said.wait, wait))

    async def _report(self, run: Run, said: Verdict) -> Outcome:
        """Tell the jobs table until it has heard, or the lease is over.

        A report that is lost costs another run, which finds its work done.
        """
        failures = 0
        while True:
            try:
                ours = await self._say(run.job, said)
            except FirstviewError as error:
                failures += 1
                poll = self._settings.jobs_poll
                longest = POLLS_WHEN_AWAY * poll
                wait = backoff(failures, base=poll, longest=longest, jitter=self._clock.jitter)
                if self._clock.monotonic() + wait >= run.lease_ends:
                    log.warning(
                        "a job's report was lost; it will be run again",
                        kind=run.job.kind,
                        request_id=run.job.request_id,
                        error=error.slug,
                    )
                    return Outcome.LOST_LEASE
                await asyncio.sleep(wait)
            except Exception:
                log.exception("a report crashed", kind=run.job.kind, request_id=run.job.request_id)
                return Outcome.LOST_LEASE
            else:
                # What has been achieved may have removed the job itself, with the row's change.
                settled = said.outcome in {Outcome.DONE, Outcome.POINTLESS}
                return said.outcome if ours or settled else Outcome.LOST_LEASE

    async def _say(self, job: Job, said: Verdict) -> bool:
        if said.outcome is Outcome.POSTPONED:
            return await self._queue.postpone(
                job,
                wait=timedelta(seconds=said.wait),
                error=said.error or "",
                counted=said.counted,
            )
        if said.outcome is Outcome.DEAD:
            return await self._queue.bury(job, said.error or "")
        return await self._queue.complete(job)

    def _note(self, run: Run, outcome: Outcome, said: Verdict | None) -> None:
        job, error = run.job, None if said is None else said.error
        self._metrics.jobs_done.labels(job.kind.value, outcome.value).inc()
        facts: dict[str, object] = {
            "kind": job.kind.value,
            "request_id": job.request_id,
            "outcome": outcome.value,
            "seconds": round(self._clock.monotonic() - run.began, 3),
            "failures": job.attempts,
        }
        if error is not None:
            facts["error"] = error
        if outcome is Outcome.DEAD:
            log.error("a job is dead; `firstview jobs retry` revives it", **facts)
        elif outcome is Outcome.POSTPONED and said is not None:
            log.warning("a job has to be tried again", wait=round(said.wait, 1), **facts)
        else:
            log.info("a job ended", **facts)
        if self._on_done is not None:
            self._on_done(job, outcome, error)
