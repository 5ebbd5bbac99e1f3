"""What all workers have counted together, also those that have ended.

Belongs here: asking each of them, and remembering the last word of each, so that no counter ever
goes back while the supervisor lives: Prometheus would take that for a restart, and the whole sum
for new events. Must not know: how workers start and end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, Protocol

from proxy.supervisor.channel import Channel
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.samples import Family, counted, from_wire, merged, read

SAMPLES: Final = "samples"
"""The question, and the name of a worker's last word."""
PATIENCE: Final = 2.0
"""Seconds that one worker gets to answer; a scrape mostly has ten."""


class Counting(Protocol):
    """A worker, as far as this file is concerned."""

    @property
    def channel(self) -> Channel | None:
        """How it is asked; None before it can be."""


class Totals:
    """One for the supervisor's whole life; `metrics` are the supervisor's own."""

    def __init__(self, metrics: Metrics) -> None:
        """Nothing has been counted."""
        self._metrics = metrics
        self._ended: list[Family] = []
        self._last: dict[Counting, list[Family]] = {}

    def began(self, worker: Counting) -> None:
        """From now on a worker may have counted something."""
        self._last[worker] = []

    def said(self, worker: Counting, sent: list[Any]) -> None:
        """Remember what a worker has counted so far, unless its end was seen before its answer."""
        if worker in self._last:
            self._last[worker] = from_wire(sent)

    def ended(self, worker: Counting) -> None:
        """Keep what it had counted by its last word."""
        self._ended = merged([self._ended, counted(self._last.pop(worker, []))])

    async def gather(self, workers: Iterable[Counting]) -> list[Family]:
        """Ask all of them now; of one that is silent, what it last said of its counters."""
        asked = [worker for worker in workers if worker.channel is not None]
        answered = dict(zip(asked, await asyncio.gather(*map(self._ask, asked)), strict=True))
        parts = [
            last if answered.get(worker) else counted(last) for worker, last in self._last.items()
        ]
        without = self._metrics.of_the_machine
        return merged([read(self._metrics.registry, without), self._ended, *parts])

    async def _ask(self, worker: Counting) -> bool:
        assert worker.channel is not None  # noqa: S101 - `gather` has looked
        try:
            self.said(worker, await worker.channel.ask(SAMPLES, PATIENCE))
        except (TimeoutError, LookupError):
            self._metrics.worker_silences.inc()
            return False
        except ConnectionError:  # it is ending
            return False
        return True
