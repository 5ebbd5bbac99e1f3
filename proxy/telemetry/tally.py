"""The tally of hits that are answered in one go: some numbers, all within reach.

Belongs here: what one such hit adds to them. Must not know: replies, or what becomes of the sums.

A hit takes some 16 us, so what is counted of it may take half of one: its bytes, its status, and
one time, which is that of its first byte and of its end alike, as the kernel took both at once.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable

from proxy.telemetry import bounds
from proxy.telemetry.counts import Count
from proxy.telemetry.timings import Buckets


class Tally:
    """Hits of one tier."""

    __slots__ = ("replies", "sent", "times")

    def __init__(self, sent: Count, reply: Callable[[int], Count]) -> None:
        """Take the count of bytes, and what makes the count of a status; use `OfViewers.hits`."""
        self.sent = sent
        self.times = Buckets(bounds.FIRST_BYTE)
        self.replies = {status: reply(status) for status in (200, 206, 304)}

    def hit(self, status: int, size: int, came: float) -> None:
        """Count one of `size` bytes, sent by now, that came at `came` of `time.monotonic`."""
        spent = time.monotonic() - came
        times = self.times
        times.counts[bisect_left(times.bounds, spent)] += 1
        times.total += spent
        self.sent.value += size
        self.replies[status].value += 1
