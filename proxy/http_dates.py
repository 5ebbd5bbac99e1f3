"""HTTP-dates (RFC 9110 §5.6.7): how they are written, and read strictly or leniently.

Belongs here: from text to time and back. Must not know: which field a date stands in, or what
follows from it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from proxy.clock import Clock

_CLOCK = Clock()

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = "(?P<month>" + "|".join(_MONTHS) + ")"
_SHORT_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_TIME = "(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_YEAR = "(?P<year>[0-9]{4})"
_DATES = (
    # IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(f"{_SHORT_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} {_YEAR} {_TIME} GMT"),
    # RFC 850: Sunday, 06-Nov-94 08:49:37 GMT
    re.compile(f"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    # asctime: Sun Nov  6 08:49:37 1994
    re.compile(f"{_SHORT_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} {_YEAR}"),
)


def http_date(value: datetime) -> str:
    """Write a time as an IMF-fixdate (RFC 9110 §5.6.7), whatever the locale.

    Raises ValueError for a time without a zone: guessing one would make replicas differ.
    """
    if value.tzinfo is None:
        raise ValueError("an HTTP-date needs a time with a zone")
    return format_datetime(value.astimezone(UTC), usegmt=True)


def parse_http_date(text: str) -> datetime | None:
    """Read an HTTP-date in any of its three formats (RFC 9110 §5.6.7); None if it is not one.

    The result is UTC with whole seconds.
    """
    for form in _DATES:
        match = form.fullmatch(text)
        if match is not None:
            break
    else:
        return None
    try:
        return datetime(
            _year(match["year"]),
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            # A leap second is a valid HTTP-date, but not a valid datetime.
            59 if match["second"] == "60" else int(match["second"]),
            tzinfo=UTC,
        )
    except ValueError:  # such as 30 February
        return None


def lenient_http_date(value: str | None) -> datetime | None:
    """Read what a server sends as an HTTP-date; None if there is none, or no sense in it.

    It may stand in any zone (RFC 5322 §3.3); one that names none is taken to be in UTC. The result
    is UTC with whole seconds.
    """
    if value is None:
        return None
    try:
        parsed = parsedate_to_datetime(value)
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=UTC)
        return parsed.astimezone(UTC).replace(microsecond=0)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _year(digits: str) -> int:
    """Value of a year of four digits, or of two, which lies at most 50 years ahead."""
    year = int(digits)
    if len(digits) > 2:  # noqa: PLR2004 - two digits are RFC 850's
        return year
    now = _CLOCK.now().year
    year += now - now % 100
    return year - 100 if year > now + 50 else year
