"""What one field of a registration may say, and what it is told when it may not.

Belongs here: fields, their other names, and the check of each value, be it text from a CSV or a
value from JSON. Must not know: where the row came from, or what becomes of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from proxy.errors import BadRequest, FirstviewError
from proxy.records import REQUEST_ID, Registration

Check = Callable[[str], object]
"""Raises a FirstviewError for a URL that would never be fetched."""

_LONGEST_URL: Final = 16_384
_LONGEST_NAME: Final = 200
_LONGEST_PROMPT: Final = 100_000
_LONGEST_SHOWN: Final = 60
_MOST_BYTES: Final = 2**63 - 1
_MOST_PIXELS: Final = 2**31 - 1
_YEARS: Final = range(1970, 3000)
"""Of a generation: what is counted from its times has to be a time too, wherever it is kept."""
_YES: Final = frozenset({"true", "yes", "1"})
_NO: Final = frozenset({"false", "no", "0"})
_DIGITS: Final = re.compile(r"[0-9]{1,19}")
HASH: Final = re.compile(r"[0-9a-f]{64}")
NO_TEXT: Final = re.compile(r"[\x00\ud800-\udfff]")
"""NUL, which PostgreSQL takes in no text, and halves of surrogate pairs, which are in no UTF-8."""
_SPACE_OR_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")


def json_object(data: bytes) -> dict[str, Any]:
    """Read a body that has to be a JSON object. Raises BadRequest."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object")
    return body


def read(row: Mapping[str, object], check: Check | None = None) -> Registration | list[str]:
    """Turn a row (its keys as `plain_name` spells them) into a registration, or all its mistakes.

    An empty text and a null are "not said"; of several names of one field the first that says
    something counts.
    """
    said: dict[str, Any] = {}
    mistakes: list[str] = []
    for field in _FIELDS:
        name, value = _pick(row, field.names)
        if value is None:
            continue
        try:
            said[field.names[0]] = field.read(value)
            if check is not None and field.names[0] == "fal_url":
                check(said["fal_url"])
        except FirstviewError as error:
            mistakes.append(f"{name}: {error.detail}")
        except ValueError as error:
            mistakes.append(f"{name} {error}")
    if "request_id" not in said and not any(text.startswith(_IDS) for text in mistakes):
        mistakes.insert(0, "request_id is missing")
    return mistakes or Registration(**said)


def plain_name(name: str) -> str:
    """Spell a column's name as the fields do: `"Request ID"` is `request_id`."""
    return re.sub(r"[\s-]+", "_", name.strip()).lower()


def _pick(row: Mapping[str, object], names: Iterable[str]) -> tuple[str, object]:
    for name in names:
        given = row.get(name)
        value: object = given.strip() if isinstance(given, str) else given
        if value is not None and value != "":
            return name, value
    return "", None


# --- values -------------------------------------------------------------------------------------


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


def _text(value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {_shown(value)}")  # noqa: TRY004 - one error for all
    if len(value) > longest:
        raise ValueError(f"is longer than {longest} characters")
    if NO_TEXT.search(value):
        raise ValueError("holds characters that no text may have")
    return value


def _request_id(value: object) -> str:
    if not isinstance(value, str) or REQUEST_ID.fullmatch(value) is None:
        raise ValueError(
            f"must be 1 to 128 letters, digits, - and _, beginning with a letter or digit,"
            f" not {_shown(value)}"
        )
    return value


def _url(value: object) -> str:
    text = value if isinstance(value, str) else _text(value, _LONGEST_URL)
    if text[:5].lower() == "data:":
        raise ValueError("is a data: URI, as sync_mode returns it; give the clip's https address")
    _text(text, _LONGEST_URL)
    try:
        parts = urlsplit(text)
        named = parts.scheme in {"https", "http"} and bool(parts.hostname) and parts.port != 0
        whole = named and bool(parts.path.strip("/"))
    except ValueError:
        whole = False
    if not whole or _SPACE_OR_CONTROL.search(text):
        raise ValueError(f"must be an https address with a path, not {_shown(text)}")
    return text


def _name(value: object) -> str:
    text = _text(value, _LONGEST_NAME)
    if not text.isprintable():
        raise ValueError(f"must be one line of printable text, not {_shown(value)}")
    return text


def _prompt(value: object) -> str:
    return _text(value, _LONGEST_PROMPT)


def _hash(value: object) -> str:
    text = value.lower() if isinstance(value, str) else ""
    if HASH.fullmatch(text) is None:
        raise ValueError(f"must be a SHA-256 in 64 hex digits, not {_shown(value)}")
    return text


def _whole(most: int, unit: str) -> Callable[[object], int]:
    def read_whole(value: object) -> int:
        number = None
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            number = int(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            number = int(value) if math.isfinite(value) and value == int(value) else None
        if number is None or not 0 < number <= most:
            raise ValueError(f"must be a positive whole number of {unit}, not {_shown(value)}")
        return number

    return read_whole


def _seconds(value: object) -> float:
    number = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"must be a positive number of seconds, not {_shown(value)}")
    return number


def moment(value: object) -> datetime:
    """Read a time in ISO 8601, in UTC if it names no zone; raises ValueError that tells why not."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        if found is not None:
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"must be a time such as 2026-11-21T10:30:00Z, not {_shown(value)}")


def _time(value: object) -> datetime:
    found = moment(value)
    if found.year not in _YEARS:
        raise ValueError(f"must be a time of the years 1970 to 2999, not {_shown(value)}")
    return found


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).lower() if isinstance(value, str | int) else ""
    if word in _YES or word in _NO:
        return word in _YES
    raise ValueError(f"must be true or false, not {_shown(value)}")


@dataclass(frozen=True, slots=True)
class _Field:
    """One field: its own name first, then others that people use."""

    names: tuple[str, ...]
    read: Callable[[object], Any]


_FIELDS: Final = (
    _Field(("request_id", "id"), _request_id),
    _Field(("fal_url", "url", "video_url"), _url),
    _Field(("model", "endpoint_id", "app"), _name),
    _Field(("prompt",), _prompt),
    _Field(("prompt_hash",), _hash),
    _Field(("content_length", "file_size"), _whole(_MOST_BYTES, "bytes")),
    _Field(("duration",), _seconds),
    _Field(("width",), _whole(_MOST_PIXELS, "pixels")),
    _Field(("height",), _whole(_MOST_PIXELS, "pixels")),
    _Field(("gated",), _flag),
    _Field(("created_at",), _time),
    _Field(("completed_at",), _time),
)
_IDS: Final = ("request_id ", "id ")
NAMES: Final = tuple(field.names for field in _FIELDS)
"""Of each field its own name, then the others."""
KNOWN_NAMES: Final = frozenset(name for names in NAMES for name in names)
