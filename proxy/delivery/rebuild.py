"""Rebuilding the catalog: what every object in the bucket says of itself, told to the catalog.

Belongs here: listing, asking each object, batches, what is no clip. Must not know: what becomes of
a row (`catalog/rebuild.py`), or who looks on.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from proxy.catalog.rebuild import Found, Restored
from proxy.delivery import identity
from proxy.delivery.whole import is_clip
from proxy.errors import ObjectMissing
from proxy.records import REQUEST_ID, ClipFacts, Generation
from proxy.storage import keys
from proxy.storage.bucket import Bucket, ObjectInfo

BATCH: Final = 500
"""Rows written in one transaction."""
HEADS: Final = 32
"""Objects asked about at once."""
_SHOWN: Final = 100

Write = Callable[[Sequence[Found]], Awaitable[list[Restored]]]


@dataclass(frozen=True, slots=True)
class Skipped:
    """An object of which no row was made, and why."""

    key: str
    reason: str

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


@dataclass(slots=True)
class Progress:
    """What became of the objects seen so far; the first hundred skipped ones by name."""

    objects: int = 0
    bytes: int = 0
    outcomes: Counter[Restored] = field(default_factory=Counter)
    skipped: int = 0
    first_skipped: list[Skipped] = field(default_factory=list)

    def skip(self, key: str, reason: str) -> None:
        """Count an object that no row was made of."""
        self.skipped += 1
        if len(self.first_skipped) < _SHOWN:
            self.first_skipped.append(Skipped(key, reason))


async def rebuild(
    bucket: Bucket, write: Write, progress: Progress, *, moved: Callable[[], None]
) -> None:
    """Tell `write` of every clip in the bucket, and keep `progress`; `moved` is called per batch.

    Nothing but the bucket is believed, and doing it again changes nothing, so that whatever broke
    off is simply begun again. Raises BucketError, CatalogError.
    """
    async for batch in _batches(bucket.list(keys.VIDEOS_PREFIX)):
        found = await _ask(bucket, batch, progress)
        outcomes = await write(found)
        for clip, outcome in zip(found, outcomes, strict=True):
            if outcome is Restored.OTHER:
                progress.skip(keys.clip_key(clip.request_id), "the catalog means another clip")
            else:
                progress.outcomes[outcome] += 1
        progress.objects += len(batch)
        progress.bytes += sum(info.size for info in batch)
        moved()


async def _batches(objects: AsyncIterator[ObjectInfo]) -> AsyncIterator[list[ObjectInfo]]:
    batch: list[ObjectInfo] = []
    async for info in objects:
        batch.append(info)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def _ask(bucket: Bucket, batch: Sequence[ObjectInfo], progress: Progress) -> list[Found]:
    """Ask the bucket about each object, since a listing says nothing of metadata."""
    turns = asyncio.Semaphore(HEADS)

    async def ask(key: str) -> ObjectInfo | str:
        async with turns:
            return await _look(bucket, key)

    named: list[tuple[str, str]] = []
    for info in batch:
        request_id = info.key.removeprefix(keys.VIDEOS_PREFIX).removesuffix(".mp4")
        if REQUEST_ID.fullmatch(request_id) is None or keys.clip_key(request_id) != info.key:
            progress.skip(info.key, "this is not the name of a clip")
        else:
            named.append((request_id, info.key))
    try:
        async with asyncio.TaskGroup() as group:
            asking = [(request_id, key, group.create_task(ask(key))) for request_id, key in named]
    except ExceptionGroup as failed:  # the others were cancelled: one of them says enough
        raise failed.exceptions[0] from None
    found: list[Found] = []
    for request_id, key, answer in asking:
        said = answer.result()
        if isinstance(said, str):
            progress.skip(key, said)
        else:
            found.append(clip_of(request_id, said))
    return found


async def _look(bucket: Bucket, key: str) -> ObjectInfo | str:
    """What an object is, or why no row is made of it."""
    info = await bucket.head(key)
    if info is None:
        return "it was removed meanwhile"
    if info.size == 0:
        return "it is empty"
    if info.altered:
        return "its bytes were changed since they were stored"
    try:
        whole = await is_clip(bucket, info)
    except ObjectMissing:
        return "it was removed meanwhile"
    return info if whole else "it is no mp4, or only the beginning of one"


def clip_of(request_id: str, info: ObjectInfo) -> Found:
    """What an object says of itself: ours by its metadata, else adopted as a view would."""

    def facts(row: Generation | None) -> ClipFacts | None:
        said = identity.facts_from_info(request_id, row, info)
        return said if row is None or identity.same_clip(row, said) else None

    return Found(
        request_id=request_id,
        facts=facts,
        sha256=identity.digest_in(info.metadata, keys.META_SHA256),
        prompt_hash=identity.digest_in(info.metadata, keys.META_PROMPT_HASH),
        at=info.last_modified,
    )
