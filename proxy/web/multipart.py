"""The body of a reply with several ranges (RFC 9110 §14.6, RFC 2046 §5.1).

Belongs here: what stands between the ranges, and how long the whole comes to be. Must not know:
how the ranges' bytes are read or sent.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.web.ranges import ByteRange, content_range


@dataclass(frozen=True, slots=True)
class Multipart:
    """A `multipart/byteranges` body that is ready to be sent.

    `content_type` and `content_length` (bytes, exact) are the reply's fields. `segments` are its
    body in sending order: bytes as they stand, and ranges of the clip.
    """

    content_type: str
    content_length: int
    segments: tuple[bytes | ByteRange, ...]


def compose(
    ranges: Sequence[ByteRange], *, length: int, content_type: str, boundary: str | None = None
) -> Multipart:
    """Lay out `ranges` of a clip of `length` bytes and type `content_type`, in their order.

    The boundary is random unless given: it cannot be guessed, so no clip can be made to hold it.
    """
    boundary = boundary or secrets.token_hex(16)
    segments: list[bytes | ByteRange] = []
    delimiter = f"--{boundary}"
    for found in ranges:
        head = (
            f"{delimiter}\r\n"
            f"Content-Type: {content_type}\r\n"
            f"Content-Range: {content_range(found, length)}\r\n\r\n"
        )
        segments += (head.encode("ascii"), found)
        delimiter = f"\r\n--{boundary}"
    segments.append(f"{delimiter}--\r\n".encode("ascii"))
    return Multipart(
        content_type=f"multipart/byteranges; boundary={boundary}",
        content_length=sum(
            segment.length if isinstance(segment, ByteRange) else len(segment)
            for segment in segments
        ),
        segments=tuple(segments),
    )
