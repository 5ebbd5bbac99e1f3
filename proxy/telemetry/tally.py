"""The tally of hits that are answered in one go: some numbers, all within reach.

Belongs here: what one such hit adds to them, and how they come into their metrics when somebody
looks. Must not know: replies, or what becomes of the sums.

A hit takes some 15 us, so what is counted of it may take not even half of one: its bytes, its
status, and one time, which is that of its first byte and of its end alike, as the kernel took both
at once. Small bodies are read before their head is made, so that moment tells their time as well.
Nearly all are ranges, and so quick that they lie below the lowest bound: the others are told apart,
and how many the quick ones are follows from how many there are in all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter

from proxy.telemetry import bounds
from proxy.telemetry.counts import Count
from proxy.telemetry.timings import Buckets

QUICK: Final = bounds.FIRST_BYTE[0]
"""Seconds: the bound of the lowest bucket."""
RANGE: Final = 206


class Tally:
    """Hits of one tier, counted and looked at by the event loop's thread alone.

    Whoever answers a hit steps `size`, `seconds`, and `ranges` or `others` by itself, and tells
    `slow` of what took longer than `QUICK`: a call for each hit would be as dear as all of that.
    """

    __slots__ = ("_sent", "_series", "others", "ranges", "seconds", "size", "times")

    def __init__(self, sent: Counter, reply: Callable[[int], Counter]) -> None:
        """Take the series of bytes, and what tells that of a status; use `OfViewers.hits`."""
        self.times = Buckets(bounds.FIRST_BYTE)
        """What the hits took, as of the last `fold`."""
        self._sent = Count(sent)
        self._series = {status: Count(reply(status)) for status in (RANGE, 200, 304)}
        self.ranges = 0
        """Replies of status `RANGE`."""
        self.others = dict.fromkeys(self._series, 0)
        """The others, by their status."""
        self.size = 0
        """Bytes sent."""
        self.seconds = 0.0
        """What all of them took together."""

    def slow(self, spent: float) -> None:
        """Tell one apart that took longer than `QUICK`."""
        self.times.counts[bisect_left(self.times.bounds, spent)] += 1

    def fold(self) -> None:
        """Bring the series and `times` up to date."""
        replies = self.others | {RANGE: self.ranges}
        for status, count in self._series.items():
            count.value = replies[status]
            count.fold()
        self._sent.value = self.size
        self._sent.fold()
        self.times.counts[0] = sum(replies.values()) - sum(self.times.counts[1:])
        self.times.total = self.seconds
