"""What is counted of processes: which version, how busy, how many.

Belongs here: names, labels, one sentence each; looking at this process. Must not know: what is done
with the figures.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.telemetry import bounds
from proxy.telemetry.counts import CountingRegistry, Described
from proxy.telemetry.samples import Family

_VITALS = (
    ("process_cpu_seconds_total", "counter", "CPU time used."),
    (
        "process_resident_memory_bytes",
        "gauge",
        "Memory in use; what processes share counts for each.",
    ),
    ("process_virtual_memory_bytes", "gauge", "Address space in use."),
    ("process_open_fds", "gauge", "Open file descriptors."),
    ("process_max_fds", "gauge", "File descriptors that there may be."),
    ("process_start_time_seconds", "gauge", "When the first process started, since 1970."),
)


def without_vitals(families: Iterable[Family]) -> list[Family]:
    """Leave out what the kernel says of a process, where another registry of it tells that."""
    return [family for family in families if not family.name.startswith("process_")]


class OfProcesses:
    """Metrics of this process, or of all that serve together."""

    def __init__(self, registry: CountingRegistry) -> None:
        """Make them, at zero."""
        self.workers = registry.gauge(
            "firstview_workers", "Processes that serve on the public listener."
        )
        self.worker_deaths = registry.counter(
            "firstview_worker_deaths",
            "Workers that ended without being told to, and attempts to replace one that failed.",
        )
        self.worker_silences = registry.counter(
            "firstview_worker_silences",
            "Times that a worker did not say in time what it has counted; its last word was used.",
        )
        self.lag = registry.timings(
            "firstview_event_loop_lag_seconds",
            "By how much an event loop was late, looked at four times a second.",
            bounds.LAG,
        )
        python = platform.python_version()
        self.build = registry.gauge(
            "firstview_build_info", "1, with what is running.", {"version": (), "python": ()}
        )
        self.build.labels(__version__, python).set(1)
        self.vitals = Vitals(registry)


class Vitals(Collector):
    """This process as the kernel sees it, under the names that every dashboard knows."""

    def __init__(self, registry: CountingRegistry) -> None:
        """Nobody has looked."""
        self._collector = ProcessCollector(registry=None)
        self._seen: list[Metric] = []
        registry.register(self)
        for name, kind, text in _VITALS:
            registry.describe(Described(name, kind, {}, text))

    def look(self) -> None:
        """Read what the kernel says. Blocks, as it is files that are read."""
        self._seen = list(self._collector.collect())

    def describe(self) -> Iterable[Metric]:
        """Nothing, until somebody has looked."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Yield what was seen last."""
        return self._seen
