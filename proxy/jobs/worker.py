"""The worker: claims jobs, has them done, keeps their leases, and stops in good order.

Belongs here: what runs beside what, the heartbeat, and stopping. Must not know: what a job does,
which error means what, or how the jobs table is kept.

    claim ─▶ handler ─▶ verdict ─▶ done: gone │ again later │ dead
      ▲         │ heartbeat: the lease is somebody else's ─▶ broken off, nothing reported
      └─────────┴── a worker that dies: its leases run out, another one claims the jobs
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import structlog

from proxy.clock import Clock
from proxy.errors import FirstviewError
from proxy.jobs.lane import Lane, Work
from proxy.jobs.runs import Handler, OnDone, Queue, Runs
from proxy.records import JobKind
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics

_BEATS: Final = 3
"""Times that a lease is extended before it would have run out."""
_GRACE: Final = 60
"""Part of a lease that a run gets to end whose job is not ours any more: what it has just achieved
may have removed the job."""
_RELEASE_TIMEOUT: Final = 5.0

log = structlog.get_logger()


class Worker:
    """Works on the jobs of the kinds that it has handlers for.

    `owner` names this worker in the leases: unique among all workers, dead ones included.
    """

    def __init__(
        self,
        jobs: Queue,
        handlers: Mapping[JobKind, Handler],
        settings: Settings,
        *,
        clock: Clock,
        metrics: Metrics,
        owner: str,
        on_done: OnDone | None = None,
    ) -> None:
        """Take the jobs table and who does what."""
        self._jobs = jobs
        self._settings = settings
        self._clock = clock
        self._runs = Runs(jobs, settings, clock, metrics, on_done)
        hands = {
            JobKind.MIRROR: settings.mirror_concurrency,
            JobKind.RESOLVE: settings.resolve_concurrency,
        }
        self._lanes = [
            Lane(
                Work(kind=kind, handler=handler, hands=hands[kind]),
                queue=jobs,
                runs=self._runs,
                settings=settings,
                clock=clock,
                owner=owner,
            )
            for kind, handler in handlers.items()
        ]
        self._claiming: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Work until `close`. Cancelled, it dies as a process does: its leases run out."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat(), name="heartbeat of the jobs")
                for lane in self._lanes:
                    self._claiming.add(group.create_task(lane.run(), name="claiming jobs"))
        finally:
            await self._runs.cancel()

    def wake(self) -> None:
        """Look for jobs now: somebody has just filed some."""
        for lane in self._lanes:
            lane.wake()

    def rest(self) -> None:
        """Claim nothing more; what runs goes on."""
        for lane in self._lanes:
            lane.close()

    async def close(self, timeout: float) -> None:
        """Claim nothing more, let the running jobs end for `timeout` seconds, release the rest."""
        self.rest()
        began = self._clock.monotonic()
        if self._claiming:
            await asyncio.wait(self._claiming, timeout=timeout)
        await self._runs.finish(max(0.0, timeout - (self._clock.monotonic() - began)))
        left = await self._runs.cancel()
        try:
            if left:
                async with asyncio.timeout(_RELEASE_TIMEOUT):
                    await self._jobs.release(left)
        except (FirstviewError, TimeoutError):
            log.warning("jobs could not be released; their leases run out", count=len(left))
        finally:
            self._closed.set()

    # -- the heartbeat ---

    async def _beat(self) -> None:
        beat = self._settings.job_lease / _BEATS
        wait = beat
        while not self._closed.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), wait)
            wait = beat if await self._extend() else beat / _BEATS

    async def _extend(self) -> bool:
        """Extend the leases of all that runs, and break off what is somebody else's by now.

        Returns whether the catalog answered. While it does not, nobody else can claim anything
        either, and the jobs go on.
        """
        held, now, lease = self._runs.held(), self._clock.monotonic(), self._settings.job_lease
        if not held:
            return True
        try:
            ours = await self._jobs.extend([run.job for run in held], timedelta(seconds=lease))
        except FirstviewError as error:
            log.warning("leases could not be extended", count=len(held), error=error.slug)
            return False
        except Exception:
            log.exception("extending leases crashed")
            return False
        for run in held:
            if run.key in ours:
                run.lease_ends = now + lease
            else:
                asyncio.get_running_loop().call_later(lease / _GRACE, self._runs.lose, run)
        return True
