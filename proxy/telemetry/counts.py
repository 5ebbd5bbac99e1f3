"""Counting that costs an addition: plain numbers, and Prometheus' own when somebody looks.

Belongs here: plain counts, and the registry that brings them into their metrics at every scrape,
knows every metric's labels with all their values, and has every series begin at zero. Must not
know: what is counted.

A counter of prometheus-client takes a lock for every step, half a microsecond in a reply that
takes ten.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.metrics_core import Metric

from proxy.telemetry.timings import Timings

# A second series for each counter, which Prometheus does not read.
disable_created_metrics()  # type: ignore[no-untyped-call]

Labels = Mapping[str, Sequence[str]]
"""A metric's labels in their order, each with all the values that it can have."""


@dataclass(frozen=True, slots=True)
class Described:
    """What a metric is called on the page, and what it says. A label without values has any."""

    name: str
    kind: str
    labels: Labels
    text: str


class Folds(Protocol):
    """Something that counts by itself and says so when somebody looks."""

    def fold(self) -> None:
        """Bring its series up to date."""
        ...


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
        self._counts: list[Folds] = []
        self.described: dict[str, Described] = {}
        """Every metric by its name on the page, in the order in which they were made."""

    # -- making metrics ---

    def counter(
        self,
        name: str,
        text: str,
        labels: Labels | None = None,
        series: Iterable[Sequence[str]] | None = None,
    ) -> Counter:
        """Make a counter; its name on the page ends in `_total`.

        `series` are the combinations of values that begin at zero, if those are not all.
        """
        labels = labels or {}
        made = Counter(name, text, tuple(labels), registry=self)
        self.described[f"{name}_total"] = Described(f"{name}_total", "counter", labels, text)
        for values in _begun(labels, series):
            made.labels(*values)
        return made

    def gauge(self, name: str, text: str, labels: Labels | None = None) -> Gauge:
        """Make a gauge."""
        labels = labels or {}
        made = Gauge(name, text, tuple(labels), registry=self)
        self.described[name] = Described(name, "gauge", labels, text)
        for values in _begun(labels, None):
            made.labels(*values)
        return made

    def timings(
        self, name: str, text: str, bounds: Sequence[float], labels: Labels | None = None
    ) -> Timings:
        """Make a histogram of seconds."""
        labels = labels or {}
        made = Timings(name, text, tuple(labels), bounds)
        self.register(made)
        self.described[name] = Described(name, "histogram, seconds", labels, text)
        for values in _begun(labels, None) if labels else [()]:
            made.labels(*values)
        return made

    def describe(self, described: Described) -> None:
        """Let a metric be known that something else collects."""
        self.described[described.name] = described

    def count(self, series: Counter) -> Count:
        """Return a plain count for a series."""
        count = Count(series)
        self.have_fold(count)
        return count

    def have_fold(self, counts: Folds) -> None:
        """Have it brought up to date before every look."""
        self._counts.append(counts)

    # -- looking ---

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics, the counts among them."""
        for count in self._counts:
            count.fold()
        return super().collect()


def _begun(labels: Labels, series: Iterable[Sequence[str]] | None) -> Iterable[Sequence[str]]:
    if series is not None:
        return series
    return itertools.product(*labels.values()) if labels else ()
