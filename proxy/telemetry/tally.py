"""The tally of hits that are answered in one go: some numbers, all within reach.

Belongs here: what one such hit adds to them, and how they come into their metrics when somebody
looks. Must not know: replies, or what becomes of the sums.

A hit takes some 16 us, so what is counted of it may take half of one: its bytes, its status, and
one time, which is that of its first byte and of its end alike, as the kernel took both at once.
Nearly all are ranges, and so quick that they lie below the lowest bound: the others are told apart,
and how many the quick ones are follows from how many there are in all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from time import monotonic
from typing import Final

from prometheus_client import Counter

from proxy.telemetry import bounds
from proxy.telemetry.counts import Count
from proxy.telemetry.timings import Buckets

_QUICK: Final = bounds.FIRST_BYTE[0]
"""Seconds: the bound of the lowest bucket."""
_RANGE: Final = 206


class Tally:
    """Hits of one tier, counted and looked at by the event loop's thread alone."""

    __slots__ = ("_others", "_ranges", "_seconds", "_sent", "_series", "_size", "times")

    def __init__(self, sent: Counter, reply: Callable[[int], Counter]) -> None:
        """Take the series of bytes, and what tells that of a status; use `OfViewers.hits`."""
        self.times = Buckets(bounds.FIRST_BYTE)
        """What the hits took, as of the last `fold`."""
        self._sent = Count(sent)
        self._series = {status: Count(reply(status)) for status in (_RANGE, 200, 304)}
        self._others = dict.fromkeys(self._series, 0)
        self._ranges = 0
        self._size = 0
        self._seconds = 0.0

    def hit(self, status: int, size: int, came: float) -> None:
        """Count one of `size` bytes, sent by now, that came at `came` of `time.monotonic`."""
        spent = monotonic() - came
        if status == _RANGE:
            self._ranges += 1
        else:
            self._others[status] += 1
        self._size += size
        self._seconds += spent
        if spent > _QUICK:
            self.times.counts[bisect_left(self.times.bounds, spent)] += 1

    def fold(self) -> None:
        """Bring the series and `times` up to date."""
        replies = self._others | {_RANGE: self._ranges}
        for status, count in self._series.items():
            count.value = replies[status]
            count.fold()
        self._sent.value = self._size
        self._sent.fold()
        self.times.counts[0] = sum(replies.values()) - sum(self.times.counts[1:])
        self.times.total = self._seconds
