"""What a clip's reply says and sends, decided before anything is sent.

Belongs here: conditions, ranges and fields put together, purely. Must not know: sockets, or where
the bytes are.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.records import CLIP_CONTENT_TYPE, ClipFacts
from proxy.storage.open_files import ServedFile
from proxy.web import headers, multipart, ranges, validators
from proxy.web.headers import ReplyPolicy, Tier
from proxy.web.ranges import ByteRange

_TYPE = CLIP_CONTENT_TYPE.encode("ascii")


Plan = tuple[int, bytes, tuple[bytes | ByteRange, ...]]
"""One reply: its status, the lines that depend on the request, and its body in order."""


def plan(request: Mapping[str, str], facts: ClipFacts, *, method: str) -> Plan:
    """Decide the reply to a request for a clip that is there.

    Raises PreconditionFailed (412), RangeNotSatisfiable (416). A HEAD ignores Range (RFC 9110
    §14.2) and has no segments.
    """
    if (
        validators.is_conditional(request)
        and validators.evaluate(request, facts, method=method) is validators.Verdict.NOT_MODIFIED
    ):
        return 304, b"", ()
    if method == "HEAD":
        return 200, headers.body_fields(_TYPE, facts.length), ()
    header = request.get("Range")
    found = None
    if header is not None and validators.range_applies(request.get("If-Range"), facts):
        found = ranges.parse(header, facts.length)
    if found is None:
        whole = ByteRange(0, facts.length)
        return 200, headers.body_fields(_TYPE, facts.length), (whole,)
    if len(found) == 1:
        start, stop = found[0]
        return 206, headers.part_fields(_TYPE, start, stop, facts.length), found
    body = multipart.compose(found, length=facts.length, content_type=CLIP_CONTENT_TYPE)
    lines = headers.body_fields(body.content_type.encode("ascii"), body.content_length)
    return 206, lines, body.segments


def stable_of(file: ServedFile, policy: ReplyPolicy) -> bytes:
    """Return the lines that all replies from an open file share; made once, kept with the file."""
    if file.head is None:
        tier: Tier = "disk" if file.tier == "disk" else "bucket"
        status = headers.cache_status(tier, hit=True)
        file.head = stable(policy, file.facts, status, gated=file.is_gated)
    return file.head


def stable(policy: ReplyPolicy, facts: ClipFacts, cache_status: str, *, gated: bool) -> bytes:
    """Return what a reply about a clip says whatever was asked: the clip's fields, Cache-Status."""
    status = headers.block([("Cache-Status", cache_status)])
    return headers.stable_fields(policy, facts, gated=gated) + status
