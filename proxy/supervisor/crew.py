"""The crew: the workers that live, and which of them accepts connections in which place.

Belongs here: numbers, places, and covering for whoever is gone. Must not know: when workers are
started and stopped.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

import structlog

from proxy.supervisor.sockets import Sockets
from proxy.supervisor.totals import SAMPLES, Totals
from proxy.supervisor.worker import STANDING, Worker
from proxy.telemetry.health import Standing
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.samples import Family, merged, to_wire

Former = Callable[[], Awaitable[list[Family]]]
"""Gives what a process has counted that served before the first worker did."""

log = structlog.get_logger()


class Crew:
    """One worker for each place of the sockets; `command` starts one, its orders are added."""

    def __init__(
        self,
        sockets: Sockets,
        command: Sequence[str],
        metrics: Metrics,
        former: Former | None = None,
    ) -> None:
        """Nobody is there yet."""
        self._sockets = sockets
        self._command = command
        self._metrics = metrics
        self._totals = Totals(metrics)
        self._former = former
        self._draining = False
        self.living: set[Worker] = set()
        """Every process that has not ended, also those that have been replaced."""
        self.at: list[Worker | None] = [None] * len(sockets.public)
        """Who was last put into each place."""

    async def hire(self, place: int) -> Worker:
        """Start a worker, and give it the place when it serves. Raises as `Worker.start` does."""
        worker = Worker(self._free_number(), place, self._totals)
        self.living.add(worker)
        try:
            await worker.start(self._command, self._sockets, len(self.at), self._asked)
        except BaseException:
            worker.stop()
            raise
        finally:
            if worker.over is None:
                self.living.discard(worker)
            else:
                worker.over.add_done_callback(lambda _: self.living.discard(worker))
        self.at[place] = worker
        self.arrange()
        if self._draining:
            worker.announce()
        log.info("worker ready", worker=worker.number, pid=worker.pid)
        return worker

    async def room(self) -> None:
        """Wait while there are two processes for each place: some still serve their last viewers.

        So a seat's number, and the memory that all of them have, stay bounded.
        """
        if len(self.living) >= 2 * len(self.at):
            log.info("reload waits: former workers still serve viewers", processes=len(self.living))
        while len(self.living) >= 2 * len(self.at):
            lives = [worker.over for worker in self.living if worker.over is not None]
            await asyncio.wait(lives, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)  # they are taken off the list when they have ended

    def _free_number(self) -> int:
        taken = {worker.number for worker in self.living}
        return min(set(range(len(taken) + 1)) - taken)

    @property
    def serving(self) -> list[Worker]:
        """Those who have a place and are there."""
        return [worker for worker in self.at if worker is not None and worker.serves]

    def arrange(self) -> None:
        """See that somebody accepts connections in every place, and only one where all is well."""
        serving = self.serving
        for place, own in enumerate(self.at):
            cover = next((one for one in serving if place in one.covers), None)
            if own in serving:
                if cover is not None:
                    cover.uncover(place)
            elif cover is None and serving:
                min(serving, key=lambda one: len(one.covers)).cover(place)

    async def _asked(self, what: str) -> Any:  # noqa: ANN401 - any JSON
        if what == STANDING:
            return asdict(Standing(len(self.serving), len(self.at), self._draining))
        if what != SAMPLES:
            raise LookupError(what)
        self._metrics.workers.set(len(self.serving))
        await asyncio.to_thread(self._metrics.vitals.look)
        found = await self._totals.gather(one for one in self.living if one.has_begun)
        if self._former is not None:
            found = merged([found, await self._former()])
        return to_wire(found)

    def announce(self) -> None:
        """Let all tell everybody that they are going to stop; and those who come after them."""
        self._draining = True
        for worker in self.living:
            worker.announce()

    def hurry(self) -> None:
        """Let all end now, in good order."""
        for worker in self.living:
            worker.hurry()

    async def dismiss(self, patience: float) -> None:
        """Stop all, and refuse whoever comes from now on; returns when all have ended.

        Whoever is still there after so many seconds is killed.
        """
        for worker in self.living:
            worker.stop()
        self._sockets.close()
        await self._ended(patience)
        for worker in self.living:
            log.error("worker killed: it did not stop in time", worker=worker.number)
            worker.signal(signal.SIGKILL)
        await self._ended(None)

    async def _ended(self, timeout: float | None) -> None:
        lives = [worker.over for worker in self.living if worker.over is not None]
        if lives:
            await asyncio.wait(lives, timeout=timeout)
            await asyncio.sleep(0)  # they are taken off the list when they have ended
