"""What is counted of webhooks, jobs and the catalog.

Belongs here: names, labels, one sentence each. Must not know: when any of it is counted.
"""

from __future__ import annotations

from typing import Final

from proxy.records import JobKind, JobState
from proxy.telemetry import bounds, values
from proxy.telemetry.counts import CountingRegistry

WEBHOOKS_TAKEN: Final = ("accepted", "duplicate", "late", "failed", "resolving")
WEBHOOKS: Final = (
    *WEBHOOKS_TAKEN,
    *("bad-signature", "bad-request", "too-large", "timeout", "unavailable"),
)
_KINDS: Final = tuple(kind.value for kind in JobKind)
_OUTCOMES: Final = ("done", "pointless", "postponed", "dead", "lost-lease", values.CANCELLED)
_RESOLVED: Final = (
    "found",
    "pending",
    values.FAILED,
    "unknown",
    "unavailable",
    "no-key",
    "no-model",
)


class OfWork:
    """Metrics of what is done without a viewer, and of the catalog."""

    def __init__(self, registry: CountingRegistry) -> None:
        """Make them, at zero."""
        self.webhooks = registry.counter(
            "firstview_webhooks",
            "Webhooks of fal, by what became of them.",
            {"result": WEBHOOKS},
        )
        self.resolves = registry.counter(
            "firstview_resolves",
            "Questions to fal's API for a result, by what it answered.",
            {"outcome": _RESOLVED},
        )
        self.jobs_done = registry.counter(
            "firstview_jobs_run",
            "Jobs that were run, by what became of them.",
            {"kind": _KINDS, "outcome": _OUTCOMES},
        )
        self.jobs = registry.gauge(
            "firstview_jobs",
            "Jobs in the catalog, by where they stand.",
            {"kind": _KINDS, "state": tuple(state.value for state in JobState)},
        )
        self.oldest_due = registry.gauge(
            "firstview_oldest_due_job_seconds",
            "Time that the oldest job which could run has been waiting.",
            {"kind": _KINDS},
        )
        self.swept = registry.counter(
            "firstview_sweep_filed",
            "Jobs that sweeps filed, by their reason.",
            {"reason": ("unstored", "pending")},
        )
        self.catalog = registry.timings(
            "firstview_catalog_seconds",
            "Time that reads and writes of the catalog took, waiting for a turn included.",
            bounds.CATALOG,
            {"kind": ("read", "write"), "result": (values.OK, values.FAILED)},
        )
        self.catalog_errors = registry.counter(
            "firstview_catalog_errors", "Requests that the catalog's row was not to be had for."
        )
        self.of_all_jobs = (self.jobs, self.oldest_due)
        """What every process that asks the same catalog sees alike."""
