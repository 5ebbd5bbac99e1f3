"""Counting that costs an addition: plain numbers, and Prometheus' own when somebody looks.

Belongs here: plain counts, and bringing them into their metrics at every scrape. Must not know:
what is counted.

A counter of prometheus-client takes a lock for every step, half a microsecond in a reply that
takes ten.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.metrics_core import Metric


class Count:
    """One time series of a counter, stepped by the event loop's thread alone."""

    __slots__ = ("_counter", "_folded", "value")

    def __init__(self, counter: Counter) -> None:
        """Take the series; use `CountingRegistry.count`."""
        self._counter = counter
        self._folded = 0
        self.value = 0
        """Steps so far; add to it."""

    def fold(self) -> None:
        """Bring the series up to date; `value` is only read, so no step is ever lost."""
        value = self.value
        self._counter.inc(value - self._folded)
        self._folded = value


class CountingRegistry(CollectorRegistry):
    """A registry whose counts are exact whenever it is collected, whoever asks."""

    def __init__(self) -> None:
        """Begin without any."""
        super().__init__()
        self._counts: list[Count] = []

    def count(self, series: Counter) -> Count:
        """Return a plain count for a series."""
        count = Count(series)
        self._counts.append(count)
        return count

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics, the counts among them."""
        for count in self._counts:
            count.fold()
        return super().collect()
