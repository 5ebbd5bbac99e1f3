"""Where a fill can get a clip's bytes: upstream, or the owned bucket, behind one face.

Belongs here: opening, and what the answer makes of the clip's facts. Must not know: the spool,
the viewers, or in which order sources are tried.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from proxy.catalog.changes import source_path
from proxy.delivery import identity
from proxy.errors import NotAClip, ObjectMissing, SourceUnavailable
from proxy.records import BodyHead, ByteStream, ClipFacts, Generation, Status
from proxy.storage import keys
from proxy.storage.bucket import Bucket


class UpstreamLike(Protocol):
    """What the corridor needs of `upstream.fetch.Upstream`."""

    async def open(
        self, url: str, start: int = 0, stop: int | None = None, *, validator: str | None = None
    ) -> ByteStream:
        """Open a URL; see `proxy.upstream.fetch`."""
        ...

    async def head_info(self, url: str) -> BodyHead:
        """Ask for the head alone."""
        ...

    def supports_ranges(self, url: str) -> bool:
        """Whether the URL's host is worth asking for a range."""
        ...


class Source(Protocol):
    """One place that has the clip."""

    @property
    def tier(self) -> str:
        """`upstream` or `bucket`, as Cache-Status shows it."""
        ...

    @property
    def row(self) -> Generation | None:
        """The catalog's row, if it has one."""
        ...

    async def open(
        self, start: int = 0, stop: int | None = None, *, validator: str | None = None
    ) -> ByteStream:
        """Open the clip's bytes; `start` < 0 asks for that many last bytes."""
        ...

    async def ask(self) -> ClipFacts:
        """What the clip is, without opening it. Raises what `open` raises."""
        ...

    def facts(self, head: BodyHead, length: int) -> ClipFacts:
        """What the clip is, now that its length is known."""
        ...

    @property
    def name(self) -> str:
        """Identity of the source, for the name of the spool file."""
        ...

    @property
    def expected_length(self) -> int | None:
        """Length that the catalog was told, if any."""
        ...

    def expected_sha256(self, head: BodyHead) -> str | None:
        """Hex SHA-256 of the whole clip, if anybody wrote that down."""
        ...

    def seekable(self) -> bool:
        """Whether a range is worth asking for."""
        ...


@dataclass(frozen=True)
class UpstreamSource:
    """A clip at fal.media, by its row in the catalog."""

    upstream: UpstreamLike
    row: Generation
    url: str
    tier: str = "upstream"

    async def open(
        self, start: int = 0, stop: int | None = None, *, validator: str | None = None
    ) -> ByteStream:
        """Open the clip at its URL."""
        return await self.upstream.open(self.url, start, stop, validator=validator)

    async def ask(self) -> ClipFacts:
        """Facts from the head alone. Raises SourceUnavailable if that does not tell the length."""
        head = await self.upstream.head_info(self.url)
        length = head.total or self.row.content_length
        if not length:
            msg = "the source tells the clip's length only by sending all of it"
            raise SourceUnavailable(msg)
        return self.facts(head, length)

    def facts(self, head: BodyHead, length: int) -> ClipFacts:
        """Facts from the URL's path and the length. Raises NotAClip on another length than told."""
        if self.row.content_length not in {None, length}:
            msg = f"the catalog was told {self.row.content_length} bytes, the source has {length}"
            raise NotAClip(msg)
        return identity.facts_from_source(self.row, self.url, head, length)

    @property
    def name(self) -> str:
        """The URL's path."""
        return source_path(self.url)

    @property
    def expected_length(self) -> int | None:
        """The `file_size` that was registered."""
        return self.row.content_length

    def expected_sha256(self, head: BodyHead) -> str | None:  # noqa: ARG002 - no source gives one
        """What a source sends is hashed here first."""
        return None

    def seekable(self) -> bool:
        """Unless its host was seen to ignore ranges."""
        return self.upstream.supports_ranges(self.url)


@dataclass(frozen=True)
class BucketSource:
    """A clip in the owned bucket; `confirm` may refuse an object that is not (or no longer) it."""

    bucket: Bucket
    request_id: str
    row: Generation | None
    confirm: Callable[[ClipFacts], bool]
    tier: str = "bucket"

    async def open(
        self, start: int = 0, stop: int | None = None, *, validator: str | None = None
    ) -> ByteStream:
        """Open the object; a negative start costs one HEAD, as the bucket counts from the front."""
        key = keys.clip_key(self.request_id)
        if start < 0:
            info = await self.bucket.head(key)
            start = 0 if info is None else max(0, info.size + start)
        etag = None if validator is None else validator.strip('"')
        return await self.bucket.open(key, start, stop, etag=etag)

    def facts(self, head: BodyHead, length: int) -> ClipFacts:
        """Facts from the object's metadata, else from its own ETag. Raises ObjectMissing."""
        facts = identity.facts_from_object(
            self.request_id,
            self.row,
            size=length,
            object_etag=(head.validator or "").strip('"'),
            last_modified=head.last_modified or _first_time(self.row),
            metadata=head.metadata or {},
        )
        if not self.confirm(facts):
            msg = "the bucket holds another clip under this id"
            raise ObjectMissing(msg)
        return facts

    async def ask(self) -> ClipFacts:
        """Facts by one HEAD. Raises ObjectMissing."""
        info = await self.bucket.head(keys.clip_key(self.request_id))
        if info is None:
            raise ObjectMissing
        head = BodyHead(
            start=0,
            stop=info.size,
            total=info.size,
            validator=f'"{info.etag}"',
            last_modified=info.last_modified,
            metadata=dict(info.metadata),
        )
        return self.facts(head, info.size)

    @property
    def name(self) -> str:
        """The object's key."""
        return keys.clip_key(self.request_id)

    @property
    def expected_length(self) -> int | None:
        """The object's own length is the only one that counts."""
        return None

    def expected_sha256(self, head: BodyHead) -> str | None:
        """From the object, or from the row that says this very object is stored.

        A multipart upload begins before its digest is known, so its object carries none.
        """
        metadata = head.metadata or {}
        beside = metadata.get(keys.META_SHA256)
        row = self.row
        if beside is not None or row is None or row.status is not Status.STORED:
            return beside
        return row.sha256 if row.etag == metadata.get(keys.META_ETAG) else None

    def seekable(self) -> bool:
        """Every object store answers ranges."""
        return True


def _first_time(row: Generation | None) -> datetime:
    """A fixed time for an object whose store gives none: when its row was made, else 1970."""
    return row.created_at if row else datetime.fromtimestamp(0, UTC)
