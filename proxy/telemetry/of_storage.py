"""What is counted of storage: the way into the bucket, the local disk.

Belongs here: names, labels, one sentence each. Must not know: when any of it is counted.
"""

from __future__ import annotations

from typing import Final

from proxy import errors
from proxy.telemetry import bounds, values
from proxy.telemetry.counts import CountingRegistry

CONFLICT: Final = "conflict"
_NOT_STORED: Final = (*values.OF_BUCKETS, *values.OF_CATALOGS, errors.DiskExhausted.slug)
RETRIED: Final = ("put", "part", "get", "control", "restart")


class OfStorage:
    """Metrics of the bucket and the disk."""

    def __init__(self, registry: CountingRegistry) -> None:
        """Make them, at zero."""
        self.stored = registry.counter("firstview_stored", "Clips committed to the bucket.")
        self.stored_bytes = registry.counter(
            "firstview_stored_bytes", "Bytes of clips committed to the bucket."
        )
        self.commits = registry.timings(
            "firstview_commit_seconds",
            "Time that a verified clip's commit to the bucket took, by its result.",
            bounds.COMMIT,
            {"result": (values.OK, CONFLICT, values.FAILED)},
        )
        self.store_failures = registry.counter(
            "firstview_store_failures",
            "Attempts to store a clip that failed.",
            {"error": _NOT_STORED},
        )
        self.retries = registry.counter(
            "firstview_bucket_retries",
            "Bucket requests that were made again, by what they were.",
            {"call": RETRIED},
        )
        self.abandoned = registry.counter(
            "firstview_uploads_abandoned", "Uploads that were begun and given up."
        )
        self.kept = registry.gauge(
            "firstview_kept_clips", "Verified clips that wait for the bucket or the catalog."
        )
        self.kept_bytes = registry.gauge(
            "firstview_kept_bytes", "Bytes that those clips pin on the local disk."
        )
        self.oldest_kept = registry.gauge(
            "firstview_oldest_kept_seconds", "Time that the oldest of those clips has been waiting."
        )
        self.bucket_missing = registry.counter(
            "firstview_bucket_missing", "Stored clips that the bucket turned out not to have."
        )
        self.checked = registry.counter(
            "firstview_bucket_checked",
            "Stored clips that were looked for in the bucket, by what was found.",
            {"result": (values.OK, "missing", "wrong-size", "altered", "corrupt")},
        )
        self.lost = registry.counter(
            "firstview_lost", "Clips found to be neither in the bucket nor at their source."
        )
        self.cached_clips = registry.gauge("firstview_cached_clips", "Clips in the disk cache.")
        self.disk_used = registry.gauge(
            "firstview_disk_used_bytes", "Bytes of the disk budget that are spoken for."
        )
        self.disk_limit = registry.gauge("firstview_disk_limit_bytes", "The disk budget.")
        self.disk_free = registry.gauge(
            "firstview_disk_free_bytes", "Bytes that are free on the disk of the data directory."
        )
        self.disk_reserve = registry.gauge(
            "firstview_disk_reserve_bytes", "Free bytes that are always left on that disk."
        )
        self.evictions = registry.counter(
            "firstview_evictions", "Clips evicted from the disk cache."
        )
        self.disowned = registry.counter(
            "firstview_disowned_files",
            "Files of the disk cache that were removed because the catalog means another clip.",
        )
        self.of_the_disk = (
            self.cached_clips,
            self.disk_used,
            self.disk_limit,
            self.disk_free,
            self.disk_reserve,
        )
        """What every process of the machine sees alike."""
