"""What a clip's reply says and sends, decided before anything is sent.

Belongs here: conditions, ranges and fields put together, purely. Must not know: sockets, or where
the bytes are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.records import CLIP_CONTENT_TYPE, ClipFacts
from proxy.web import multipart, ranges, validators
from proxy.web.ranges import ByteRange

Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Plan:
    """One reply: its status, the fields that depend on the request, and its body in order."""

    status: int
    fields: Fields
    segments: tuple[bytes | ByteRange, ...]


def plan(request: Mapping[str, str], facts: ClipFacts, *, method: str) -> Plan:
    """Decide the reply to a request for a clip that is there.

    Raises PreconditionFailed (412), RangeNotSatisfiable (416). A HEAD ignores Range (RFC 9110
    §14.2) and has no segments.
    """
    if validators.evaluate(request, facts, method=method) is validators.Verdict.NOT_MODIFIED:
        return Plan(304, [], ())
    whole = ByteRange(0, facts.length)
    if method == "HEAD":
        return Plan(200, _fields(CLIP_CONTENT_TYPE, facts.length), ())
    header = request.get("Range")
    found = None
    if header is not None and validators.range_applies(request.get("If-Range"), facts):
        found = ranges.parse(header, facts.length)
    if found is None:
        return Plan(200, _fields(CLIP_CONTENT_TYPE, facts.length), (whole,))
    if len(found) == 1:
        fields = _fields(CLIP_CONTENT_TYPE, found[0].length)
        fields.append(("Content-Range", ranges.content_range(found[0], facts.length)))
        return Plan(206, fields, (found[0],))
    body = multipart.compose(found, length=facts.length, content_type=CLIP_CONTENT_TYPE)
    return Plan(206, _fields(body.content_type, body.content_length), body.segments)


def _fields(content_type: str, length: int) -> Fields:
    return [("Content-Type", content_type), ("Content-Length", str(length))]
