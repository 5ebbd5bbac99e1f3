"""Whether our clock agrees with somebody else's, by the Date field of their replies.

Belongs here: the judgement. Must not know: who was asked.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from proxy.cli.doctor.finding import Verdict, failure, fine, unchecked, warning
from proxy.http_dates import lenient_http_date

_WARN: Final = 5.0
"""Seconds; a Date has whole seconds, and a reply takes a while."""
_STORES: Final = 15 * 60.0
"""S3 refuses what was signed further away (RequestTimeTooSkewed)."""

MEND_CLOCK: Final = "let chrony or systemd-timesyncd set this machine's clock"


def judge_date(date: str | None, now: datetime, whose: str, tolerance: float = _STORES) -> Verdict:
    """Compare a Date field, as it came, with our time when it came.

    `tolerance` is how many seconds the other side, or we, put up with.
    """
    theirs = lenient_http_date(date)
    if theirs is None:
        return unchecked(f"{whose} sends no Date that could be read")
    return judge_skew((now - theirs).total_seconds(), whose, tolerance)


def judge_skew(skew: float, whose: str, tolerance: float = _STORES) -> Verdict:
    """Judge by how many seconds our clock is ahead of theirs."""
    if abs(skew) <= _WARN:
        return fine(f"agrees with {whose}")
    seen = f"ours is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} {whose}'s"
    if abs(skew) > tolerance:
        return failure(f"{seen}, and {tolerance:,.0f} s are the most that works", MEND_CLOCK)
    return warning(seen, f"{MEND_CLOCK}: signatures, links and leases depend on it")
