"""How the fake answers one request: everything that a test can wish for, with decent defaults.

Belongs here: the script, not its performance. Must not know: sockets.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Literal

FOREVER = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One answer. Times in seconds; byte counts are of this answer's body, not of the clip.

    The default answers as a good server does: Content-Length, ranges, a strong ETag that depends
    on the bytes, Last-Modified.
    """

    # before the answer
    delay: float = 0.0
    """Wait before the status line: the round trip. `FOREVER` never answers."""
    status: int | None = None
    """Answer this status with a small error page, or with `body`, instead of the clip."""
    location: str | None = None
    """Redirect there (with 302, or `status`)."""
    hang_up: Literal["fin", "rst"] | None = None
    """Close instead of answering."""

    # what the answer says
    content_type: str | None = "video/mp4"
    body: bytes | None = None
    """Send this instead of the clip's bytes; b"" is an empty clip."""
    length_lie: int = 0
    """Announce that many bytes more (or fewer) than are sent."""
    framing: Literal["length", "chunked", "chunked-open", "close"] = "length"
    """How the body's end is marked; `chunked-open` closes without the last chunk."""
    ranges: Literal[
        "honour", "ignore", "wrong-start", "wrong-total", "garbage", "missing", "multipart"
    ] = "honour"
    etag: Literal["strong", "weak", "none"] | str = "strong"  # noqa: PYI051 - says what is special
    """`strong` or `weak`, made of the bytes; `none`; or the field's literal value."""
    last_modified: str | None = "Wed, 21 Oct 2026 07:28:00 GMT"
    md5: Literal["none", "right", "wrong"] = "none"
    """Send `Content-MD5` and `x-goog-hash`."""
    gzip: bool = False
    """Claim (and do) `Content-Encoding: gzip`."""
    headers: dict[str, str] = field(default_factory=dict)
    """Fields to add; those that are there already are replaced."""
    raw_head: bytes | None = None
    """Send exactly this instead of status line and fields (the blank line included)."""

    # while the body goes out
    first_byte_delay: float = 0.0
    """Wait between the fields and the body."""
    rate: float | None = None
    """Bytes a second; as fast as possible without."""
    cut_at: int | None = None
    """Close cleanly (FIN) after that many bytes."""
    reset_at: int | None = None
    """Reset the connection (RST) after that many bytes have arrived."""
    stall_at: int | None = None
    """Pause after that many bytes, for `stall_for`."""
    stall_for: float = FOREVER
    stall_until: asyncio.Event | None = None
    """Pause there until this is set, whatever `stall_for` says."""
