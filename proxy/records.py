"""The values that pass between the parts: frozen, without behaviour of their own.

Belongs here: what a generation, a job, a clip's facts and a source's answer are. Must not know:
where they are kept, how they travel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""What a request id looks like; use `fullmatch`."""

CLIP_CONTENT_TYPE = "video/mp4"
"""The type that every clip is served and stored with, whatever its source called it."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Which of the processes that serve together this one is.

    `number` is below twice `of`, because a process that is being replaced keeps its own until it
    ends; no two living processes of one supervisor have the same.
    """

    number: int = 0
    of: int = 1


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
    gated: bool | None = None
    """Whether only a signed link shows it; None: as FIRSTVIEW_GATED says."""
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
    gated: bool | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFacts:
    """What every reply about one clip says, identically from every tier, replica and moment.

    `etag` is the opaque tag without quotes, always strong. `last_modified` has whole seconds,
    as an HTTP-date has (RFC 9110 §5.6.7). `gated` is what the generation said of itself when the
    clip was brought in: it counts where the catalog cannot be asked what it says now.
    """

    request_id: str
    length: int
    etag: str
    last_modified: datetime
    model: str | None = None
    gated: bool | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """What an mp4 says of itself: seconds, and pixels of its first video track."""

    duration: float | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What fal said of one request, understood: by a webhook, or when its API was asked.

    Exactly one of three: `clips` (the clip itself first, then `<request_id>_2`, …), `failure`
    (there will be no clip, and why), or `resolve` (there is a result, which has to be asked for).
    """

    request_id: str
    clips: tuple[Registration, ...] = ()
    failure: str | None = None
    resolve: bool = False


class JobKind(StrEnum):
    """What a job does: `mirror` fills the bucket, `resolve` asks fal where the clip is."""

    MIRROR = "mirror"
    RESOLVE = "resolve"


class JobState(StrEnum):
    """Where a job stands. A job that is done is gone."""

    DUE = "due"
    WAITING = "waiting"
    RUNNING = "running"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of the jobs table: work on one generation that survives every process.

    `asked` puts it before the others: somebody wants the clip now. `expires_at` is when its source
    is expected to delete it. `attempts` counts claims that failed. While it runs, `lease_owner`
    names one claim of one worker, and whoever no longer holds that name may not report on it.
    """

    request_id: str
    kind: JobKind
    asked: bool = False
    expires_at: datetime | None = None
    created_at: datetime
    due_at: datetime
    attempts: int = 0
    lease_owner: str | None = None
    lease_until: datetime | None = None
    last_error: str | None = None
    dead_at: datetime | None = None

    def state(self, now: datetime) -> JobState:
        """Tell where it stands at `now`."""
        if self.dead_at is not None:
            return JobState.DEAD
        if self.lease_until is not None and self.lease_until > now:
            return JobState.RUNNING
        return JobState.WAITING if self.due_at > now else JobState.DUE


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


@runtime_checkable
class DirectStream(Protocol):
    """A ByteStream that can put its bytes where the reader wants them, without a copy between."""

    async def offer(self, buffer: memoryview) -> None:
        """Let bytes into a buffer; wait for the first of them, or for the body's proper end.

        More may follow until `take`, which must be called next; whoever is cancelled here has the
        buffer back already. Raises what `ByteStream.read` raises.
        """
        ...

    def take(self) -> int:
        """Take the buffer back: how many bytes it begins with are new, 0 at the proper end."""
        ...
