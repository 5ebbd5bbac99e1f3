"""What is counted of viewers: their requests, replies and connections.

Belongs here: names, labels, one sentence each. Must not know: when any of it is counted.
"""

from __future__ import annotations

import functools
from typing import Final

from proxy import errors
from proxy.telemetry import bounds, values
from proxy.telemetry.counts import Count, CountingRegistry
from proxy.telemetry.tally import Tally

_LIMITS: Final = ("max_connections", "max_viewers", "max_fills")
_SHED: Final = (
    *_LIMITS,
    "max_header_bytes",
    "header_timeout",
    "bucket_lookup_rate",
    "webhook_bodies",
    "upstream_max_connections",
)
_WHOLE: Final = ("200", "206", "304")
_BROKEN: Final = (
    *values.OF_VIEWERS,
    values.STOPPED,
    *values.slugs(errors.SourceError, errors.BucketError),
    errors.DiskExhausted.slug,
    values.RESTING,
    errors.Overloaded.slug,
    values.INTERNAL,
)


class OfViewers:
    """Metrics of the public listener."""

    def __init__(self, registry: CountingRegistry) -> None:
        """Make them, at zero."""
        self._registry = registry
        self.requests = registry.counter(
            "firstview_requests",
            "Replies on the public listener that went out whole.",
            {
                "status": sorted({*_WHOLE, *values.STATUSES}),
                "tier": (*values.TIERS, values.NONE),
            },
            series=[
                *((status, tier) for status in _WHOLE for tier in values.TIERS),
                *((status, values.NONE) for status in ("200", *values.STATUSES)),
            ],
        )
        self.sent_bytes = registry.counter(
            "firstview_sent_bytes", "Bytes of clips sent to viewers.", {"tier": values.TIERS}
        )
        self.aborted = registry.counter(
            "firstview_replies_aborted",
            "Replies that did not reach their end.",
            {"reason": _BROKEN, "tier": (*values.TIERS, values.NONE)},
            series=[
                *((reason, tier) for reason in _BROKEN for tier in values.TIERS),
                *((reason, values.NONE) for reason in (*values.OF_VIEWERS, values.STOPPED)),
            ],
        )
        self.first_byte = registry.timings(
            "firstview_first_byte_seconds",
            "Time from a request about a clip to the beginning of its reply.",
            bounds.FIRST_BYTE,
            {"tier": values.TIERS},
        )
        self.reply = registry.timings(
            "firstview_reply_seconds",
            "Time from a request about a clip to the end of its reply, where it went out whole.",
            bounds.REPLY,
            {"tier": values.TIERS},
        )
        self.joins = registry.counter(
            "firstview_joins", "Viewers who joined a fill that another one had begun."
        )
        self.viewers = registry.gauge(
            "firstview_viewers", "Replies in progress of clips that were no hits."
        )
        self.slow_hits = registry.gauge(
            "firstview_slow_hits", "Hits in progress that wait for their viewer to read."
        )
        self.connections = registry.gauge(
            "firstview_connections", "Open connections to the public listener."
        )
        self.limit = registry.gauge(
            "firstview_limit",
            "How many there may be at once, all processes together, by the setting's name.",
            {"limit": _LIMITS},
        )
        self.shed = registry.counter(
            "firstview_shed",
            "Requests and connections turned away at a limit.",
            {"limit": _SHED},
        )
        self.replies = functools.cache(self._replies)
        self.sent = functools.cache(self._sent)
        self.hits = functools.cache(self._hits)

    def _replies(self, status: int, tier: str) -> Count:
        """The count of one kind of reply; ask `replies`, which makes each of the few once."""
        return self._registry.count(self.requests.labels(str(status), tier))

    def _sent(self, tier: str) -> Count:
        """The count of one tier's bytes; ask `sent`, which makes each of the few once."""
        return self._registry.count(self.sent_bytes.labels(tier))

    def _hits(self, tier: str) -> Tally:
        """The tally of one tier's hits; ask `hits`, which makes each of the few once."""
        tally = Tally(
            self.sent_bytes.labels(tier), lambda status: self.requests.labels(str(status), tier)
        )
        self._registry.have_fold(tally)
        self.first_byte.add(tally.times, tier)
        self.reply.add(tally.times, tier)
        return tally
