"""Who a clip is: its ETag, its Last-Modified, and how both travel in an object's metadata.

Belongs here: pure rules that make every tier, replica and moment say the same of a clip. Must not
know: where the clip is, or how it is sent.

The ETag of a clip from fal is a hash of its URL's *path* and its length, so that any replica
computes it alone; a URL's host or query may change without making another clip of it. An object
that someone else put into the bucket gets its ETag from the bucket's ETag and length. Which kind
an id has is fixed by whoever saw it first, and kept in the catalog and in the metadata.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from proxy.catalog.changes import source_path
from proxy.records import BodyHead, ClipFacts, Generation
from proxy.storage import keys
from proxy.storage.bucket import ObjectInfo

_DIGEST = re.compile(r"[0-9a-f]{64}")
_GATED = {"yes": True, "no": False}


def etag_of(identity: str, length: int) -> str:
    """First 16 bytes, in hex, of SHA-256(identity, newline, length)."""
    return hashlib.sha256(f"{identity}\n{length}".encode()).hexdigest()[:32]


def facts_from_source(row: Generation, url: str, head: BodyHead, length: int) -> ClipFacts:
    """Facts of a clip whose source just said its length.

    Last-Modified is what was first seen, else the source's, else when the catalog says that the
    clip was made: the same for every replica, and never the time of the request.
    """
    etag = etag_of(source_path(url), length)
    known = row.last_modified if row.etag == etag else None
    when = known or head.last_modified or row.completed_at or row.created_at
    return ClipFacts(
        request_id=row.request_id,
        length=length,
        etag=etag,
        last_modified=_whole_seconds(when),
        model=row.model,
        gated=row.gated,
    )


def facts_from_object(
    request_id: str,
    row: Generation | None,
    *,
    size: int,
    object_etag: str,
    last_modified: datetime,
    metadata: Mapping[str, str],
) -> ClipFacts:
    """Facts of a clip that the bucket holds: ours by its metadata, else adopted.

    What the catalog fixed for this very length wins over an object without metadata of ours, so
    that one id never has ETags of both kinds.
    """
    etag, when = metadata.get(keys.META_ETAG), metadata.get(keys.META_LAST_MODIFIED)
    if etag is None and row is not None and row.etag and row.content_length == size:
        etag = row.etag
        when = row.last_modified.isoformat() if row.last_modified else when
    elif etag is None and row is not None and row.etag is None and row.fal_url is not None:
        etag = etag_of(source_path(row.fal_url), size)  # what its source would be given
    return ClipFacts(
        request_id=request_id,
        length=size,
        etag=etag or etag_of(object_etag, size),
        last_modified=_whole_seconds(_parse_time(when) or last_modified),
        model=metadata.get(keys.META_MODEL) or (row.model if row else None),
        gated=_GATED.get(metadata.get(keys.META_GATED, "")) if row is None else row.gated,
    )


def facts_from_info(request_id: str, row: Generation | None, info: ObjectInfo) -> ClipFacts:
    """Facts of a clip that the bucket holds, by what it says of the object itself."""
    return facts_from_object(
        request_id,
        row,
        size=info.size,
        object_etag=info.etag,
        last_modified=info.last_modified,
        metadata=info.metadata,
    )


def facts_from_row(row: Generation) -> ClipFacts | None:
    """Facts that the catalog has fixed already; None while the source was never seen."""
    if row.etag is None or row.content_length is None or row.last_modified is None:
        return None
    return ClipFacts(
        request_id=row.request_id,
        length=row.content_length,
        etag=row.etag,
        last_modified=_whole_seconds(row.last_modified),
        model=row.model,
        gated=row.gated,
    )


def same_clip(row: Generation, facts: ClipFacts) -> bool:
    """Whether the catalog still means the clip of these facts, or was re-pointed since.

    An ETag of ours stands for one length, so an object that carries it and has another is damaged.
    """
    if row.etag is not None:
        return row.etag == facts.etag and row.content_length in {None, facts.length}
    if row.fal_url is None:
        return True
    return etag_of(source_path(row.fal_url), facts.length) == facts.etag


def metadata_of(facts: ClipFacts, prompt_hash: str | None = None) -> dict[str, str]:
    """What is written beside the bytes, so that the bucket alone can rebuild the catalog."""
    metadata = {
        keys.META_REQUEST_ID: facts.request_id,
        keys.META_ETAG: facts.etag,
        keys.META_LAST_MODIFIED: facts.last_modified.isoformat(),
    }
    if facts.model is not None and facts.model.isascii() and facts.model.isprintable():
        metadata[keys.META_MODEL] = facts.model
    if prompt_hash is not None:
        metadata[keys.META_PROMPT_HASH] = prompt_hash
    if facts.gated is not None:
        metadata[keys.META_GATED] = "yes" if facts.gated else "no"
    return metadata


def digest_in(metadata: Mapping[str, str], name: str) -> str | None:
    """A SHA-256 in hex that an object's metadata holds; None for anything else, or nothing."""
    value = metadata.get(name, "")
    return value if _DIGEST.fullmatch(value) else None


def _whole_seconds(when: datetime) -> datetime:
    return when.astimezone(UTC).replace(microsecond=0)


def _parse_time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
        return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # the last hours of the year 9999, elsewhere
        return None
