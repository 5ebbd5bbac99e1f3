"""What a request's conditions come to (RFC 9110 §13).

Belongs here: entity-tags, and the order in which conditions count. Must not know: ranges, or how
the reply is put together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import Enum, auto

from proxy.errors import PreconditionFailed
from proxy.http_dates import parse_http_date
from proxy.records import ClipFacts

# One element of a list of entity-tags with its comma (RFC 9110 §8.8.3, §5.6.1.2); a tag may hold
# commas itself. Possessive, so that a line full of blanks is not gone over again and again.
_TAG_ELEMENT = re.compile(
    r"""[ \t]*+ (?: (?P<weak>W/)? "(?P<tag>[^\x00-\x20"\x7f]*+)" )?+ [ \t]*+ (?: , | \Z )""",
    re.VERBOSE,
)


class Verdict(Enum):
    """What the conditions leave to do."""

    PROCEED = auto()
    """Answer as if there were no conditions; a Range counts from here on."""
    NOT_MODIFIED = auto()
    """304: the client's copy is good."""


def is_conditional(headers: Mapping[str, str]) -> bool:
    """Whether a request has any condition, but for If-Range."""
    return (
        "If-None-Match" in headers
        or "If-Modified-Since" in headers
        or "If-Match" in headers
        or "If-Unmodified-Since" in headers
    )


def evaluate(headers: Mapping[str, str], facts: ClipFacts, *, method: str) -> Verdict:
    """Weigh a request's conditions in the order of RFC 9110 §13.2.2.

    `headers` must look names up without regard to case; where it has `getall`, as a multidict
    has, several lines of one name count as one list. Invalid dates are ignored. Raises
    PreconditionFailed for a 412.
    """
    if method in {"OPTIONS", "TRACE", "CONNECT"}:
        return Verdict.PROCEED  # §13.2.1: these select no representation
    tags = _field(headers, "If-Match")
    if tags is not None:
        if not _matches(tags, facts, strong=True):
            raise PreconditionFailed
    else:
        since = _date(headers, "If-Unmodified-Since")
        if since is not None and facts.last_modified > since:
            raise PreconditionFailed
    reading = method in {"GET", "HEAD"}
    if _is_known(headers, facts, reading=reading):
        if reading:
            return Verdict.NOT_MODIFIED
        raise PreconditionFailed
    return Verdict.PROCEED


def range_applies(if_range: str | None, facts: ClipFacts) -> bool:
    """Whether a Range may be answered, as far as If-Range goes (RFC 9110 §13.1.5).

    True without the field. A tag is compared strongly, so that a weak one never applies; a date
    applies only if it is exactly the Last-Modified that we send.
    """
    if if_range is None:
        return True
    value = if_range.strip(" \t")
    if '"' in value:
        return value == f'"{facts.etag}"'
    return parse_http_date(value) == facts.last_modified


def entity_tags(field: str) -> list[tuple[bool, str]]:
    """Split a list of entity-tags into (is weak, opaque tag without quotes).

    Empty if any of it is not an entity-tag: half a list proves nothing.
    """
    tags = []
    position = 0
    while position < len(field):
        match = _TAG_ELEMENT.match(field, position)
        if match is None:
            return []
        if match["tag"] is not None:
            tags.append((match["weak"] is not None, match["tag"]))
        position = match.end()
    return tags


def _is_known(headers: Mapping[str, str], facts: ClipFacts, *, reading: bool) -> bool:
    """Whether the client says that it has this very clip (§13.2.2, steps 3 and 4)."""
    tags = _field(headers, "If-None-Match")
    if tags is not None:
        return _matches(tags, facts, strong=False)
    since = _date(headers, "If-Modified-Since") if reading else None
    return since is not None and facts.last_modified <= since


def _matches(field: str, facts: ClipFacts, *, strong: bool) -> bool:
    """Whether a list of entity-tags, or `*`, names the clip (RFC 9110 §8.8.3.2)."""
    if field.strip(" \t") == "*":
        return True
    return any(
        tag == facts.etag and not (strong and is_weak) for is_weak, tag in entity_tags(field)
    )


def _field(headers: Mapping[str, str], name: str) -> str | None:
    """Return a field's value, its lines joined as RFC 9110 §5.3 says; None if absent."""
    if name not in headers:
        return None
    getall = getattr(headers, "getall", None)
    return headers[name] if getall is None else ", ".join(getall(name))


def _date(headers: Mapping[str, str], name: str) -> datetime | None:
    value = _field(headers, name)
    return None if value is None else parse_http_date(value.strip(" \t"))
