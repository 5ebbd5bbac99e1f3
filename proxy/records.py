"""The values that pass between the parts: frozen, without behaviour of their own.

Belongs here: what a generation, a clip's facts and a source's answer are. Must not know: where
they are kept, how they travel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""What a request id looks like; use `fullmatch`."""

CLIP_CONTENT_TYPE = "video/mp4"
"""The type that every clip is served and stored with, whatever its source called it."""


class Status(StrEnum):
    """Where a generation stands: `pending → available → stored`, or `failed`, `lost`."""

    PENDING = "pending"
    AVAILABLE = "available"
    STORED = "stored"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One row of the catalog: what is known of one generation. Times are UTC, sizes are bytes."""

    request_id: str
    status: Status
    model: str | None = None
    prompt_hash: str | None = None
    prompt: str | None = None
    fal_url: str | None = None
    cdn_url: str | None = None
    content_length: int | None = None
    content_type: str | None = None
    etag: str | None = None
    last_modified: datetime | None = None
    sha256: str | None = None
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None
    refusals: int = 0
    first_refused_at: datetime | None = None
    created_at: datetime
    completed_at: datetime | None = None
    mirrored_at: datetime | None = None
    last_viewed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What an application, an import file or a webhook says of a generation.

    `None` means "not said": it never erases what the catalog knows. `content_length` is the
    source's own `file_size`, which a fill then has to match.
    """

    request_id: str
    fal_url: str | None = None
    model: str | None = None
    prompt_hash: str | None = None
    prompt: str | None = None
    content_length: int | None = None
    duration: float | None = None
    width: int | None = None
    height: int | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """What every reply about one clip says, identically from every tier, replica and moment.

    `etag` is the opaque tag without quotes, always strong. `last_modified` has whole seconds,
    as an HTTP-date has (RFC 9110 §5.6.7).
    """

    request_id: str
    length: int
    etag: str
    last_modified: datetime
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyHead:
    """What a source said before the first byte of its body.

    The body holds bytes `start` up to `stop` (exclusive) of a resource of `total` bytes; `stop`
    and `total` are None when the source did not say (chunked, or no length). `validator` is the
    strong entity-tag *with* its quotes, as `If-Range` wants it, or None. `md5` is the raw 16
    bytes of the whole resource's MD5 when the source gave one. `framed` is False when nothing
    but the closing of the connection marks the body's end, so that its end proves nothing.
    """

    start: int
    stop: int | None
    total: int | None
    content_type: str | None = None
    validator: str | None = None
    last_modified: datetime | None = None
    md5: bytes | None = None
    framed: bool = True
    metadata: dict[str, str] | None = None
    """User metadata of an object, keys lower-case; None from a source that has no such thing."""


class ByteStream(Protocol):
    """An open body: bytes in order, once. Must be closed, also when it was read to its end."""

    head: BodyHead

    async def read(self) -> bytes:
        """Return the next bytes, as many as have arrived; b"" at the body's proper end.

        Raises SourceUnavailable or SourceTimeout (BucketUnavailable from a bucket) when the
        body ends before its announced end, is reset, or stalls.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection; a body that was not read to its end costs it."""
        ...
