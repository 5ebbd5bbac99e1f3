"""The two fields that a partial request lives by: `Range` going out, `Content-Range` coming back.

Belongs here: writing the one, reading the other strictly, and what a right answer would hold.
Must not know: any library, or what is done about a wrong answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CONTENT_RANGE = re.compile(r"bytes +([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ContentRange:
    """Bytes `start` up to `stop` (exclusive) of `total`, as a 206 announces them."""

    start: int
    stop: int
    total: int


def parse_content_range(value: str) -> ContentRange | None:
    """Read a `Content-Range` of a 206 (RFC 9110 §14.4), or return None.

    None means: another unit, an unknown total (`*`), digits that are not ASCII, or numbers that
    contradict each other. A range that cannot be placed is of no use here, so there is nothing
    in between.
    """
    match = _CONTENT_RANGE.fullmatch(value.strip(" \t"))
    if match is None:
        return None
    first, last, total = (int(number) for number in match.groups())
    return ContentRange(first, last + 1, total) if first <= last < total else None


def range_field(start: int, stop: int | None) -> str | None:
    """Write the `Range` field for bytes `start` up to `stop` (exclusive); None for all of them.

    A negative `start` means the last `-start` bytes and takes no `stop` (RFC 9110 §14.1.2).
    Raises ValueError when the two describe no byte at all.
    """
    if start < 0 and stop is None:
        return f"bytes={start}"
    if start < 0 or (stop is not None and stop <= start):
        msg = f"bytes {start} to {stop} is no range"
        raise ValueError(msg)
    if stop is None:
        return f"bytes={start}-" if start else None
    return f"bytes={start}-{stop - 1}"


def expected_range(start: int, stop: int | None, total: int) -> tuple[int, int]:
    """Return the (start, stop) that a right answer holds, once the `total` size is known."""
    if start < 0:
        return max(0, total + start), total
    return start, total if stop is None else min(stop, total)
