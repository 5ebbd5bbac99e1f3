"""Histograms of plain numbers: an observation is a search among the bounds and two additions.

Belongs here: counting what took how long, and Prometheus' form of it when somebody looks. Must not
know: what is timed.

A histogram of prometheus-client goes through its bounds one by one, with a lock for each number.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Buckets:
    """One time series: how many observations lie between the bounds, for one thread to count.

    `bounds` are upper ones in seconds, each of its bucket; `counts` has one more, for all above.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin at zero."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """Seconds of all observations together."""

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class Timings(Collector):
    """A histogram: its series by the values of its labels."""

    def __init__(
        self, name: str, text: str, labels: tuple[str, ...], bounds: Sequence[float]
    ) -> None:
        """Use `CountingRegistry.timings`."""
        self._name = name
        self._text = text
        self._labels = labels
        self._bounds = tuple(map(float, bounds))
        self._series: dict[tuple[str, ...], Buckets] = {}
        self._elsewhere: dict[tuple[str, ...], list[Buckets]] = {}

    def labels(self, *values: str) -> Buckets:
        """The series of these values; made when first asked for."""
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = Buckets(self._bounds)
        return series

    def observe(self, seconds: float) -> None:
        """Count one, without labels."""
        self.labels().observe(seconds)

    def add(self, buckets: Buckets, *values: str) -> None:
        """Have a series include what is counted elsewhere, within the same bounds or finer ones."""
        reached = [bound for bound in self._bounds if bound <= buckets.bounds[-1]]
        if not set(reached) <= set(buckets.bounds):
            raise ValueError(f"{self._name} would have to split what lies between two bounds")
        self._elsewhere.setdefault(values, []).append(buckets)

    def describe(self) -> Iterable[Metric]:
        """Say what the registry is going to collect."""
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        """Yield the histogram as it is now."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [*(str(bound) for bound in self._bounds), "+Inf"]
        for values, own in self._series.items():
            counts, total = list(own.counts), own.total
            for other in self._elsewhere.get(values, ()):
                total += other.total
                for bound, count in zip((*other.bounds, math.inf), other.counts, strict=True):
                    counts[bisect_left(self._bounds, bound)] += count
            family.add_metric(values, list(zip(names, accumulate(counts), strict=True)), total)
        yield family
