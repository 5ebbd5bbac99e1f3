"""What people write and read on a command line: times, spans, sizes.

Belongs here: turning them into values and back. Must not know: any command.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import ByteSize

from proxy.errors import SettingsError
from proxy.settings import parse_duration

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400
_UNITS: Final = ((2 * _DAY, _DAY, "d"), (_HOUR, _HOUR, "h"), (2 * _MINUTE, _MINUTE, "m"))
"""From how many seconds on a time is written in a unit, the unit's length, its letter."""


def read_moment(option: str, text: str | None, now: datetime) -> datetime | None:
    """Turn `2026-11-01`, `2026-11-01T12:00:00+01:00` or `24h` (that long ago) into a UTC time.

    A time that names no zone is in UTC. Raises SettingsError for anything else.
    """
    if text is None:
        return None
    try:
        ago = parse_duration(text)
        if isinstance(ago, float):
            return now - timedelta(seconds=ago)
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        msg = f"{option}: {text!r} is not a time, such as 2026-11-01, 2026-11-01T12:00Z or 24h"
        raise SettingsError(msg) from error


def moment(value: datetime | None) -> str:
    """A time to the minute, in UTC."""
    return "" if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"


def size(count: float | None) -> str:
    """Bytes in decimal units: `12.3MB`."""
    return "" if count is None else ByteSize(int(count)).human_readable(decimal=True)


def span(seconds: float) -> str:
    """A span of time in its two largest units at most: `42s`, `3m 10s`, `2h 05m`, `9d 03h`."""
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR:02}h"


def duration(seconds: float) -> str:
    """A time in the largest unit that has it whole, as settings take it: `14d`, `24h`, `250ms`."""
    for least, length, unit in _UNITS:
        if seconds >= least and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds * 1000:.15g}ms" if 0 < seconds < 1 else f"{seconds:.15g}s"


def printable(text: str) -> str:
    """A text on one line, without what a terminal would take for a command."""
    return "".join(char if char.isprintable() else " " for char in text)
