"""Candidates: which sources may be asked for a clip that is nowhere near, and in what order.

Belongs here: what each status of a row means for that, and what a clip is called that no source
has. Must not know: flights, files, how a source is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from proxy.clock import Clock
from proxy.delivery import identity
from proxy.delivery.sources import BucketSource, Source, UpstreamLike, UpstreamSource
from proxy.delivery.tokens import TokenBucket
from proxy.errors import (
    CatalogError,
    CatalogUnavailable,
    ClipFailed,
    ClipGone,
    ClipNotReady,
    FirstviewError,
    ObjectMissing,
    Overloaded,
    UnknownClip,
)
from proxy.records import ClipFacts, Generation, Status
from proxy.settings import Settings
from proxy.storage.bucket import Bucket
from proxy.telemetry.metrics import Metrics


class Candidates:
    """Chooses sources. `outage` is why the catalog could not be asked, if it could not."""

    def __init__(
        self,
        settings: Settings,
        bucket: Bucket,
        upstream: UpstreamLike,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Take the two kinds of source."""
        self._settings = settings
        self._bucket = bucket
        self._upstream = upstream
        self._metrics = metrics
        self._unknown = TokenBucket(settings.bucket_lookup_rate, settings.bucket_lookup_rate, clock)

    def of(
        self, request_id: str, row: Generation | None, outage: CatalogError | None
    ) -> tuple[Source, ...]:
        """Who may be asked, in order; raises what is known to be in the way.

        A local bucket has been looked into already: what it has is sent from where it lies.
        """
        bucket: tuple[Source, ...] = ()
        if not self._bucket.is_local:
            same = partial(_is_same, row)
            bucket = (BucketSource(self._bucket, request_id, row, same),)
        if row is None:
            return self._of_unknown(bucket, outage)
        if row.status is Status.FAILED:
            raise ClipFailed
        if row.status is Status.LOST:  # unless the owner has put it back
            return self._or_missing(bucket, row, outage)
        upstream: tuple[Source, ...] = ()
        if row.fal_url is not None:
            upstream = (UpstreamSource(self._upstream, row, row.fal_url),)
        elif row.status is not Status.STORED:
            raise ClipNotReady
        return self._or_missing(
            bucket + upstream if row.status is Status.STORED else upstream + bucket, row, outage
        )

    def _of_unknown(
        self, bucket: tuple[Source, ...], outage: CatalogError | None
    ) -> tuple[Source, ...]:
        if outage is not None or not bucket:
            return self._or_missing(bucket, None, outage)
        if not self._settings.bucket_lookup_unknown:
            raise UnknownClip
        if not self._unknown.take():
            self._metrics.shed.labels("bucket_lookup_rate").inc()
            msg = "too many unknown clips are being asked for; try again shortly"
            raise Overloaded(msg)
        return bucket

    def _or_missing(
        self, sources: tuple[Source, ...], row: Generation | None, outage: CatalogError | None
    ) -> tuple[Source, ...]:
        if not sources:
            raise self.missing(row, outage)
        return sources

    def missing(self, row: Generation | None, outage: CatalogError | None) -> FirstviewError:
        """What a clip that is in no place is called: unknown, gone, or not to be said now."""
        if outage is not None:
            return CatalogUnavailable()
        return UnknownClip() if row is None else ClipGone()


def most_telling(errors: Sequence[FirstviewError]) -> FirstviewError:
    """What a viewer hears of when no source had the clip: ObjectMissing only if all say so.

    What may pass by itself goes first, so that an outage of the bucket never looks like a clip
    that is gone.
    """
    known = [error for error in errors if not isinstance(error, ObjectMissing)] or errors
    return next((error for error in known if error.retryable), known[0])


def _is_same(row: Generation | None, facts: ClipFacts) -> bool:
    """Whether an object is the clip that the catalog means; it cannot object to one unknown."""
    return row is None or identity.same_clip(row, facts)
