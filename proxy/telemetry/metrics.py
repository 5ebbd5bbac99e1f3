"""Every metric: its name, unit and one sentence; Prometheus' own conventions for names.

Belongs here: what is counted. Must not know: when. One object per process, given to whoever
counts, so that tests read their own numbers.
"""

from __future__ import annotations

import functools

from prometheus_client import Counter, Gauge, Histogram

from proxy.telemetry.counts import Count, CountingRegistry

_FIRST_BYTE = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Metrics:
    """All metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        """Make them all, at zero."""
        self.registry = registry = CountingRegistry()
        self.requests = Counter(
            "firstview_requests",
            "Replies on the public listener.",
            ["status", "tier"],
            registry=registry,
        )
        self.replies = functools.cache(self._replies)
        self.sent_bytes = Counter(
            "firstview_sent_bytes", "Bytes of clips sent to viewers.", ["tier"], registry=registry
        )
        self.sent = functools.cache(self._sent)
        self.aborted = Counter(
            "firstview_replies_aborted",
            "Replies that did not reach their end.",
            ["reason"],
            registry=registry,
        )
        self.first_byte = Histogram(
            "firstview_first_byte_seconds",
            "Time from a request to the beginning of its reply, of clips that were no hits.",
            ["tier"],
            buckets=_FIRST_BYTE,
            registry=registry,
        )
        self.viewers = Gauge("firstview_viewers", "Clip replies in progress.", registry=registry)
        self.connections = Gauge(
            "firstview_connections", "Open connections to the public listener.", registry=registry
        )
        self.shed = Counter(
            "firstview_shed",
            "Requests and connections turned away at a limit.",
            ["limit"],
            registry=registry,
        )
        self.fills = Counter(
            "firstview_fills",
            "Fills that ended, by source and outcome.",
            ["source", "outcome"],
            registry=registry,
        )
        self.followed = Counter(
            "firstview_followed_fills",
            "Fills of other processes of this machine that were followed, by how that ended.",
            ["end"],
            registry=registry,
        )
        self.fills_in_flight = Gauge(
            "firstview_fills_in_flight", "Clips on their way in.", registry=registry
        )
        self.filled_bytes = Counter(
            "firstview_filled_bytes",
            "Bytes of clips that sources delivered to fills.",
            ["source"],
            registry=registry,
        )
        self.resumes = Counter(
            "firstview_fill_resumes",
            "Broken sources that were asked to continue.",
            ["source"],
            registry=registry,
        )
        self.seeks = Counter(
            "firstview_seeks",
            "Ranges asked from a source beside its fill.",
            ["outcome"],
            registry=registry,
        )
        self.passthrough = Counter(
            "firstview_streamed_through",
            "Clips sent without being kept, by what was full.",
            ["reason"],
            registry=registry,
        )
        self.stored = Counter(
            "firstview_stored", "Clips committed to the bucket.", registry=registry
        )
        self.stored_bytes = Counter(
            "firstview_stored_bytes", "Bytes of clips committed to the bucket.", registry=registry
        )
        self.store_failures = Counter(
            "firstview_store_failures",
            "Attempts to store a clip that failed.",
            ["error"],
            registry=registry,
        )
        self.kept = Gauge(
            "firstview_kept_clips",
            "Verified clips that wait for the bucket or the catalog.",
            registry=registry,
        )
        self.bucket_missing = Counter(
            "firstview_bucket_missing",
            "Stored clips that the bucket turned out not to have.",
            registry=registry,
        )
        self.cached_clips = Gauge(
            "firstview_cached_clips", "Clips in the disk cache.", registry=registry
        )
        self.disk_used = Gauge(
            "firstview_disk_used_bytes",
            "Bytes of the disk budget that are spoken for.",
            registry=registry,
        )
        self.evictions = Counter(
            "firstview_evictions", "Clips evicted from the disk cache.", registry=registry
        )
        self.webhooks = Counter(
            "firstview_webhooks",
            "Webhooks of fal, by what became of them.",
            ["result"],
            registry=registry,
        )
        self.resolves = Counter(
            "firstview_resolves",
            "Questions to fal's API for a result, by what it answered.",
            ["outcome"],
            registry=registry,
        )
        self.jobs_done = Counter(
            "firstview_jobs_run",
            "Jobs that were run, by what became of them.",
            ["kind", "outcome"],
            registry=registry,
        )
        self.jobs = Gauge(
            "firstview_jobs",
            "Jobs in the catalog, by where they stand.",
            ["kind", "state"],
            registry=registry,
        )
        self.oldest_due = Gauge(
            "firstview_oldest_due_job_seconds",
            "Time that the oldest job which could run has been waiting.",
            ["kind"],
            registry=registry,
        )
        self.swept = Counter(
            "firstview_sweep_filed",
            "Jobs that sweeps filed, by their reason.",
            ["reason"],
            registry=registry,
        )
        self.checked = Counter(
            "firstview_bucket_checked",
            "Stored clips that were looked for in the bucket, by what was found.",
            ["result"],
            registry=registry,
        )
        self.lost = Counter(
            "firstview_lost",
            "Clips found to be neither in the bucket nor at their source.",
            registry=registry,
        )
        self.disowned = Counter(
            "firstview_disowned_files",
            "Files of the disk cache that were removed because the catalog means another clip.",
            registry=registry,
        )
        self.catalog_errors = Counter(
            "firstview_catalog_errors", "Catalog reads and writes that failed.", registry=registry
        )
        self.workers = Gauge(
            "firstview_workers", "Processes that serve on the public listener.", registry=registry
        )
        self.worker_deaths = Counter(
            "firstview_worker_deaths",
            "Workers that ended without being told to, each of which was replaced.",
            registry=registry,
        )
        self.worker_silences = Counter(
            "firstview_worker_silences",
            "Times that a worker did not say in time what it has counted; its last word was used.",
            registry=registry,
        )
        self.of_the_machine: frozenset[str] = frozenset(
            family.name
            for gauge in (self.jobs, self.oldest_due, self.cached_clips, self.disk_used)
            for family in gauge.describe()
        )
        """Gauges that every process of the machine sees alike; one of them says all."""

    def _replies(self, status: int, tier: str) -> Count:
        """The count of one kind of reply; ask `replies`, which makes each of the few once."""
        return self.registry.count(self.requests.labels(status, tier))

    def _sent(self, tier: str) -> Count:
        """The count of one tier's bytes; ask `sent`, which makes each of the few once."""
        return self.registry.count(self.sent_bytes.labels(tier))
