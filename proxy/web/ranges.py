"""Which bytes of a clip a Range field asks for (RFC 9110 §14).

Belongs here: from the field's text to intervals of bytes, and back to Content-Range. Must not
know: where the bytes are, what else the request says (`If-Range` is in `validators.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from proxy.errors import RangeNotSatisfiable

MAX_RANGES = 16
"""Ranges that one request may ask for; with more it gets the whole clip."""

# RFC 9110 §5.6.1.2 wants "a reasonable number of empty list elements" accepted, no more.
_MAX_EMPTY_ELEMENTS = 16
# Every clip is smaller than this, and every number of at most 18 digits is too: longer ones need
# no arithmetic. (`int` takes quadratic time, and refuses more than 4,300 digits.)
_BEYOND = 10**18
_DIGITS = 18
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")
# What players send: one range with a beginning. Only spares it the way of the general case.
_PLAIN = re.compile(rf"bytes=([0-9]{{1,{_DIGITS}}})-([0-9]{{1,{_DIGITS}}})?")


class ByteRange(NamedTuple):
    """Bytes `start` up to `stop`, exclusive; never empty."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class RangeHint:
    """The one range a request asks for, before anyone knows the clip's length.

    Either `first`, with `last` inclusive or None for an open end; or `suffix`, the number of
    bytes at the end of the clip.
    """

    first: int | None = None
    last: int | None = None
    suffix: int | None = None


def parse(
    header: str | None, length: int, *, max_ranges: int = MAX_RANGES
) -> tuple[ByteRange, ...] | None:
    """Turn a Range field into the byte ranges to send, in the order asked for (RFC 9110 §14.2).

    None: ignore the field and send the whole clip. So it is without a field, with an unknown
    unit, with text that is not a set of byte ranges, with more than `max_ranges` ranges, and
    where several ranges come to more bytes than the clip's `length`, or more than two of them
    overlap. Of several ranges those without a byte in the clip are left out.

    Raises RangeNotSatisfiable when none has a byte in the clip, or one has its last before its
    first: the RFC leaves ignoring or rejecting that to the server, which rejects it.
    """
    plain = None if header is None else _PLAIN.fullmatch(header)
    if plain is not None:
        first, last = plain.groups()
        start, stop = int(first), length if last is None else int(last) + 1
        if start < stop <= length:
            return (ByteRange(start, stop),)
    specs = _specs(header, max_ranges)
    if specs is None:
        return None
    ranges = []
    for first, last in specs:
        if _inverted(first, last):
            raise RangeNotSatisfiable(length)
        found = _resolve(first, last, length)
        if found is not None:
            ranges.append(found)
    if not ranges:
        raise RangeNotSatisfiable(length)
    if len(ranges) > 1 and _excessive(ranges, length):
        return None
    return tuple(ranges)


def hint(header: str | None) -> RangeHint | None:
    """Return the one range asked for, as far as it is known without the clip's length.

    None without a field, for several ranges, for unparsable ones, and for those that no clip can
    satisfy: there is nothing to ask a source for early. Says nothing about the reply: `parse`
    does, once the length is known.
    """
    specs = _specs(header, MAX_RANGES)
    if specs is None or len(specs) != 1 or _inverted(*specs[0]):
        return None
    first, last = (_number(digits) for digits in specs[0])
    if first is None:
        return RangeHint(suffix=last) if last and last < _BEYOND else None
    if first >= _BEYOND:
        return None
    return RangeHint(first=first, last=None if last is None or last >= _BEYOND else last)


def content_range(found: ByteRange, length: int) -> str:
    """Value of the Content-Range field of a 206 (RFC 9110 §14.4); `length` is the clip's."""
    return f"bytes {found.start}-{found.stop - 1}/{length}"


def _specs(header: str | None, max_ranges: int) -> list[tuple[str, str]] | None:
    """Split a field into pairs of digits, without leading zeros; None if it is to be ignored.

    An absent number is "": ("5", "") is `5-`, ("", "5") is the suffix `-5`.
    """
    if header is None:
        return None
    unit, _, elements = header.partition("=")
    if unit.lower() != "bytes" or elements.count(",") >= max_ranges + _MAX_EMPTY_ELEMENTS:
        return None
    specs = []
    for element in elements.split(","):
        text = element.strip(" \t")
        if not text:
            continue
        match = _SPEC.fullmatch(text)
        if match is None or text == "-":
            return None
        specs.append((_significant(match[1]), _significant(match[2])))
    return specs if 0 < len(specs) <= max_ranges else None


def _significant(digits: str) -> str:
    return digits.lstrip("0") or digits[:1]


def _number(digits: str) -> int | None:
    """Value of significant digits, at most `_BEYOND`; None for none."""
    if not digits:
        return None
    return int(digits) if len(digits) <= _DIGITS else _BEYOND


def _inverted(first: str, last: str) -> bool:
    # Without leading zeros the longer number is the larger: exact at any length, in linear time.
    return bool(first and last) and (len(last), last) < (len(first), first)


def _resolve(first: str, last: str, length: int) -> ByteRange | None:
    """Clip one range to the clip's length; None if no byte of it is left."""
    start, end = _number(first), _number(last)
    if start is None:
        # A suffix longer than the clip is the whole clip (RFC 9110 §14.1.2).
        start, end = max(0, length - (end or 0)), None
    stop = length if end is None else min(end + 1, length)
    return ByteRange(start, stop) if start < stop else None


def _excessive(ranges: list[ByteRange], length: int) -> bool:
    """Whether several ranges cost more than the whole clip, or too many overlap.

    RFC 9110 §14.2 lets a server refuse "more than two overlapping ranges"; §17.15 says why: a
    small request must not cause a huge reply.
    """
    if sum(found.length for found in ranges) > length:
        return True
    overlapping = [
        one
        for one in ranges
        if any(
            one is not other and one.start < other.stop and other.start < one.stop
            for other in ranges
        )
    ]
    return len(overlapping) > 2  # noqa: PLR2004 - the RFC's own number
