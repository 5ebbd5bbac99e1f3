"""Every metric of one process, and which of them several processes must not add up.

Belongs here: the whole of the parts. Must not know: when anything is counted. One object per
process, given to whoever counts, so that tests read their own numbers.

A new metric is one more attribute of the part that it belongs to (`of_*.py`): a name by Prometheus'
conventions, a sentence, and its labels with every value that they can have. It then begins at zero,
is in `docs/metrics.md` after `make reference`, and is summed over workers; a gauge that is the
same in all of them has to be in `of_the_machine`, and one that is an age begins with
`firstview_oldest_`, of which the longest counts.
"""

from __future__ import annotations

from proxy.telemetry.counts import CountingRegistry
from proxy.telemetry.of_fills import OfFills
from proxy.telemetry.of_processes import OfProcesses
from proxy.telemetry.of_storage import OfStorage
from proxy.telemetry.of_viewers import OfViewers
from proxy.telemetry.of_work import OfWork


class Metrics(OfViewers, OfFills, OfStorage, OfWork, OfProcesses):
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        """Make them all, at zero."""
        self.registry = CountingRegistry()
        OfViewers.__init__(self, self.registry)
        OfFills.__init__(self, self.registry)
        OfStorage.__init__(self, self.registry)
        OfWork.__init__(self, self.registry)
        OfProcesses.__init__(self, self.registry)
        self.of_the_machine: frozenset[str] = frozenset(
            family.name
            for gauge in (*self.of_the_disk, *self.of_all_jobs, self.build)
            for family in gauge.describe()
        )
        """Gauges that every process of the machine sees alike; one of them says all."""
