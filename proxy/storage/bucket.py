"""The bucket: the one protocol that S3 and a directory both keep.

Belongs here: what an owned bucket can be asked, and the values of its answers. Must not know:
any of its implementations, or what a clip is.

An upload has three ends, as in distribution's driver: *commit* makes the object visible, whole
and verified; *abort* leaves nothing behind and may be called again; dropping it without either
is a bug. Nothing is visible under the key before commit returns, and nothing partial ever is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from proxy.records import ByteStream

PRESIGNED_FOR: Final = 900
"""Seconds that a presigned URL is good for; only the start of a request counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a bucket says of one object. `etag` has no quotes; metadata keys are lower-case.

    `altered`: firstview wrote this object, and its bytes were changed in place since, so that its
    metadata is left out. Only files can be; in S3 whatever is written is another object.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    altered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObject:
    """What an upload is going to write.

    `size` in bytes. `metadata` values are printable ASCII. `replaces` is the bucket's own ETag of
    the object that this one may overwrite; None means that the key must be free.
    """

    key: str
    size: int
    content_type: str
    metadata: Mapping[str, str]
    replaces: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalObject:
    """An object's own file, open, with what is said of exactly that file. The caller closes it."""

    fd: int
    info: ObjectInfo


class Upload(Protocol):
    """One object on its way into the bucket, read from a local file that only grows."""

    async def advance(self, written: int) -> None:
        """Send what can be sent: the file's first `written` bytes are final.

        Called by one task, as the file grows; may do nothing. Raises BucketError.
        """
        ...

    async def commit(self, sha256: str) -> ObjectInfo:
        """Make the whole object visible under its key and return what the bucket says of it.

        The file holds all `size` bytes and has been verified; `sha256` is its hex digest. If the
        key already holds the same bytes (a lost reply, another replica), that is success. Raises
        ObjectConflict when the key holds other bytes, BucketUnavailable, BucketRefused. A failed
        commit may be called again.
        """
        ...

    async def abort(self) -> bool:
        """Leave nothing behind; never raises, and may be called again.

        False: something may be left, because the bucket could not be asked.
        """
        ...


class Bucket(Protocol):
    """An owned bucket."""

    @property
    def name(self) -> str:
        """How an operator knows it: `s3://name` or `file:///path`. Never holds a secret."""
        ...

    async def head(self, key: str) -> ObjectInfo | None:
        """Return what the bucket says of an object, None if there is none. Raises BucketError."""
        ...

    async def open(
        self, key: str, start: int = 0, stop: int | None = None, *, etag: str | None = None
    ) -> ByteStream:
        """Open bytes `start` up to `stop` (exclusive; None: to the end) of an object.

        With `etag`, only if the object still has it. Raises ObjectMissing, SourceChanged (another
        ETag), BucketUnavailable, BucketRefused. The head's `metadata` is always set.
        """
        ...

    def upload(self, new: NewObject, path: Path) -> Upload:
        """Begin to write an object from a local file; nothing is sent before `advance`."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether objects are files of this machine, so that no second copy is kept of them."""
        ...

    async def open_local(self, key: str) -> LocalObject | None:
        """Open an object's own file; None if there is none, or this bucket is not local."""
        ...

    def seems_here(self, key: str) -> bool:
        """Whether there is a file of that key on this machine. Blocks, shortly."""
        ...

    async def presigned(self, key: str) -> str | None:
        """A URL by which anybody may read an object for `PRESIGNED_FOR`, if there is one.

        None of a local bucket, which only this machine reaches. Raises BucketError.
        """
        ...

    def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Every object whose key has the prefix, in key order; metadata may be left out."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; no error if there is none."""
        ...

    async def abort_uploads(self, prefix: str, older_than: timedelta) -> int:
        """Abort unfinished uploads below a prefix that were begun longer ago; return how many."""
        ...

    async def check(self) -> None:
        """Raise BucketError if the bucket cannot be used as configured."""
        ...

    async def close(self) -> None:
        """Let go of connections and temporary files."""
        ...
