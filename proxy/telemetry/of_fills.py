"""What is counted of fills: clips on their way in, and the sources that they come from.

Belongs here: names, labels, one sentence each. Must not know: when any of it is counted.
"""

from __future__ import annotations

from typing import Final

from proxy import errors
from proxy.telemetry import bounds, values
from proxy.telemetry.counts import CountingRegistry

_WAYS: Final = ("seek", "through")
_ENDED: Final = (values.OK, values.CANCELLED, "no-room")
_SOURCES: Final = (*values.ORIGINS, values.NONE)
_FAILED: Final = tuple(dict.fromkeys((*values.OF_SOURCES, *values.OF_BUCKETS)))
_SEEKS: Final = (values.OK, "ignored", "no_place", *_FAILED)
NO_ROOM: Final = _ENDED[2]


class OfFills:
    """Metrics of fills and of their sources."""

    def __init__(self, registry: CountingRegistry) -> None:
        """Make them, at zero."""
        self.fills = registry.counter(
            "firstview_fills",
            "Fills that ended, by source and outcome.",
            {"source": _SOURCES, "outcome": (*_ENDED, *_FAILED, errors.CatalogUnavailable.slug)},
            series=[
                *((source, outcome) for source in values.ORIGINS for outcome in _ENDED),
                *(("upstream", outcome) for outcome in values.OF_SOURCES),
                *(("bucket", outcome) for outcome in values.OF_BUCKETS),
                *((values.NONE, outcome) for outcome in (values.CANCELLED, *_FAILED)),
            ],
        )
        self.fill_seconds = registry.timings(
            "firstview_fill_seconds",
            "Time from a fill's start until its clip was verified, of those that got there.",
            bounds.FILL,
            {"source": values.ORIGINS},
        )
        self.followed = registry.counter(
            "firstview_followed_fills",
            "Fills of other processes of this machine that were followed, by how that ended.",
            {"end": ("whole", "go_on", "gone", "no_room")},
        )
        self.takeovers = registry.counter(
            "firstview_takeovers", "Fills that went on where another process had ended."
        )
        self.fills_in_flight = registry.gauge(
            "firstview_fills_in_flight",
            "Clips on their way in, counted by each process that fills one or follows its fill.",
        )
        self.filled_bytes = registry.counter(
            "firstview_filled_bytes",
            "Bytes of clips that sources delivered to fills.",
            {"source": values.ORIGINS},
        )
        self.beside_bytes = registry.counter(
            "firstview_beside_bytes",
            "Bytes of clips that sources delivered past fills: to far ranges, or for want of room.",
            {"source": values.ORIGINS, "way": _WAYS},
        )
        self.resumes = registry.counter(
            "firstview_fill_resumes",
            "Broken sources that were asked to continue.",
            {"source": values.ORIGINS},
        )
        self.seeks = registry.counter(
            "firstview_seeks",
            "Ranges asked from a source beside its fill.",
            {"outcome": tuple(dict.fromkeys(_SEEKS))},
        )
        self.passthrough = registry.counter(
            "firstview_streamed_through",
            "Clips sent without being kept, by what was full.",
            {"reason": ("disk", "range_budget")},
        )
        self.breakers = registry.gauge(
            "firstview_upstream_breakers",
            "Hosts that clips come from, by the state of their breaker, as each process sees it.",
            {"state": values.BREAKERS},
        )
        self.resting = registry.gauge(
            "firstview_upstream_resting",
            "Processes that leave a host alone because it keeps failing; 16 hosts have a name,"
            " those first that are left alone, and all others are `other`.",
            {"host": ()},
        )
