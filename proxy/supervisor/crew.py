"""The crew: the workers that live, and which of them accepts connections in which place.

Belongs here: numbers, places, and covering for whoever is gone. Must not know: when workers are
started and stopped.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Any

import structlog

from proxy.supervisor.sockets import Sockets
from proxy.supervisor.totals import SAMPLES, Totals
from proxy.supervisor.worker import Worker
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.samples import to_wire

log = structlog.get_logger()


class Crew:
    """One worker for each place of the sockets; `command` starts one, its orders are added."""

    def __init__(self, sockets: Sockets, command: Sequence[str], metrics: Metrics) -> None:
        """Nobody is there yet."""
        self._sockets = sockets
        self._command = command
        self._metrics = metrics
        self._totals = Totals(metrics)
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
        log.info("worker ready", worker=worker.number, pid=worker.pid)
        return worker

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
        if what != SAMPLES:
            raise LookupError(what)
        self._metrics.workers.set(len(self.serving))
        return to_wire(await self._totals.gather(self.living))

    async def dismiss(self, timeout: float) -> None:
        """Stop all, kill who still is there after `timeout` seconds, return when all have ended."""
        for worker in self.living:
            worker.stop()
        if not await self._ended(timeout):
            for worker in self.living:
                log.error("worker killed: it did not stop in time", worker=worker.number)
                worker.signal(signal.SIGKILL)
            await self._ended(None)

    async def _ended(self, timeout: float | None) -> bool:
        lives = [worker.over for worker in self.living if worker.over is not None]
        if not lives:
            return True
        _, left = await asyncio.wait(lives, timeout=timeout)
        return not left
