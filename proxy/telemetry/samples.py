"""What the metrics say at one moment, as values that can travel, be added up and be written down.

Belongs here: the sums over several processes, and Prometheus' own text of them. Must not know:
which processes there are, or how the values come from one to another.

Counters and histograms of several processes are summed, sample by sample, and so are gauges; what
all of them see alike (`Metrics.of_the_machine`) is left to one of them. A moment at which something
began is that of the first of them, and what is oldest is the oldest of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_BEGINNINGS: Final = ("_created", "_start_time_seconds")
_OLDEST: Final = "firstview_oldest_"

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: all its samples."""

    name: str
    kind: str
    text: str
    samples: dict[Key, float] = field(default_factory=dict)


def read(registry: CollectorRegistry, without: frozenset[str] = frozenset()) -> list[Family]:
    """What a registry says now, but for the families that are named in `without`."""
    return [_family(metric) for metric in registry.collect() if metric.name not in without]


def _family(metric: Metric) -> Family:
    samples = {(one.name, tuple(one.labels.items())): one.value for one in metric.samples}
    return Family(metric.name, metric.type, metric.documentation, samples)


def merged(parts: Iterable[Iterable[Family]]) -> list[Family]:
    """The sums of all parts, in the order in which metrics are first met."""
    found: dict[str, Family] = {}
    for families in parts:
        for family in families:
            into = found.setdefault(family.name, Family(family.name, family.kind, family.text))
            for key, value in family.samples.items():
                before = into.samples.get(key)
                into.samples[key] = value if before is None else _joined(key[0], before, value)
    return list(found.values())


def _joined(name: str, one: float, other: float) -> float:
    if name.endswith(_BEGINNINGS):
        return min(one, other)
    return max(one, other) if name.startswith(_OLDEST) else one + other


def counted(families: Iterable[Family]) -> list[Family]:
    """Only what never goes down: this stays true of a process when it has ended."""
    return [family for family in families if family.kind in {"counter", "histogram"}]


def to_wire(families: Iterable[Family]) -> list[Any]:
    """What JSON can carry; `from_wire` reads it."""
    return [
        [one.name, one.kind, one.text, [[*key, value] for key, value in one.samples.items()]]
        for one in families
    ]


def from_wire(sent: list[Any]) -> list[Family]:
    """What `to_wire` made, after JSON has made lists of its tuples."""
    return [Family(name, kind, text, _samples(samples)) for name, kind, text, samples in sent]


def _samples(sent: list[Any]) -> dict[Key, float]:
    return {(name, tuple((k, v) for k, v in labels)): value for name, labels, value in sent}


def render(families: Iterable[Family]) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Given(families))
    return generate_latest(registry)


class _Given(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.text, family.kind)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric
