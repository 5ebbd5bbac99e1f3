"""The disk budget and the disk cache: whole clips whose own copy is in a remote bucket.

Belongs here: how many bytes of local disk are spoken for, by whom, and what makes room. Must not
know: where clips come from. Nothing here is the only copy of anything that is called stored.

Bytes are reserved before they are written, so that fills which run at once cannot together
overrun the budget; a reservation either becomes a cached clip or is given back.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog
from prometheus_client import Counter

from proxy.records import ClipFacts
from proxy.storage import keys
from proxy.storage.facts_file import read_facts, write_facts
from proxy.storage.open_files import OpenFile

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CachedClip:
    """One cached clip: its file and its facts."""

    path: Path
    facts: ClipFacts


class Reservation:
    """Bytes of the budget that are spoken for."""

    __slots__ = ("_cache", "size")

    def __init__(self, cache: DiskCache, size: int) -> None:
        """Use `DiskCache.reserve`."""
        self._cache = cache
        self.size = size

    def release(self) -> None:
        """Give the bytes back; a second call gives nothing."""
        self._cache.used -= self.size
        self.size = 0


class DiskCache:
    """Cached clips, least recently used first, within a budget of bytes."""

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int,
        keep_free: int,
        executor: Executor,
        on_evict: Callable[[str], None],
        evictions: Counter | None = None,
    ) -> None:
        """Keep clips below `root`; `on_evict` hears of every id that is no longer here."""
        self._root = root
        self._max_bytes = max_bytes
        self._keep_free = keep_free
        self._executor = executor
        self._on_evict = on_evict
        self._evictions = evictions
        self._clips: OrderedDict[str, CachedClip] = OrderedDict()
        self._cached = 0
        self._moving = asyncio.Lock()
        self.used = 0

    def __len__(self) -> int:
        """How many clips are cached."""
        return len(self._clips)

    def __contains__(self, request_id: str) -> bool:
        """Whether a clip is cached."""
        return request_id in self._clips

    async def load(self) -> None:
        """Find what an earlier process left; a clip without readable facts is removed."""
        for clip in await self._in_thread(lambda: _scan(self._root)):
            await self.remove(clip.facts.request_id)  # an older clip of a re-pointed id
            self._clips[clip.facts.request_id] = clip
            self.used += clip.facts.length
            self._cached += clip.facts.length
        while self.used > self._max_bytes and self._clips:
            await self._evict()

    async def reserve(self, size: int) -> Reservation | None:
        """Speak for bytes, evicting what was used least recently; None if there is no room.

        Nothing is evicted for a clip that would not fit in the end.
        """
        while self.used + size > self._max_bytes:
            if self.used - self._cached + size > self._max_bytes:
                return None
            await self._evict()
        reservation = Reservation(self, size)
        self.used += size
        while (free := await self._free_bytes()) - size < self._keep_free:
            if free + self._cached - size < self._keep_free:
                reservation.release()
                return None
            await self._evict()
        return reservation

    def claim(self, size: int) -> Reservation:
        """Speak for bytes that are on the disk already, whether or not the budget has them."""
        self.used += size
        return Reservation(self, size)

    async def grow(self, reservation: Reservation, size: int) -> bool:
        """Make a reservation hold at least `size` bytes; False if there is no room for that."""
        more = await self.reserve(max(size - reservation.size, reservation.size))
        if more is None:
            return False
        reservation.size += more.size
        return True

    async def open(self, request_id: str) -> OpenFile | None:
        """Open a cached clip and count it as used; the caller owns the result."""
        clip = self._clips.get(request_id)
        if clip is None:
            return None
        self._clips.move_to_end(request_id)
        try:
            fd = await self._in_thread(lambda: _open_whole(clip))
        except OSError as error:  # too many open files, say: the clip itself may be as good as ever
            log.warning("a cached clip cannot be opened", request_id=request_id, error=str(error))
            return None
        if fd is not None:
            return OpenFile(fd, clip.facts, "disk")
        if self._clips.get(request_id) is clip:
            await self.remove(request_id)
        return None

    def touch(self, request_id: str) -> None:
        """Count a clip as used."""
        if request_id in self._clips:
            self._clips.move_to_end(request_id)

    async def adopt(self, path: Path, facts: ClipFacts, reservation: Reservation) -> None:
        """Move a whole, verified file into the cache; its reservation passes to here.

        Raises OSError, with everything as it was before but for the id's former clip.
        """
        await self.remove(facts.request_id)
        target = self._root / f"{keys.cached_name(facts.request_id, facts.etag)}.mp4"
        async with self._moving:
            await self._in_thread(lambda: _move_in(path, target, facts))
        reservation.size = 0
        self._clips[facts.request_id] = CachedClip(target, facts)
        self._cached += facts.length

    async def remove(self, request_id: str) -> None:
        """Forget a clip and delete its file; those who are reading it keep their bytes."""
        clip = self._clips.pop(request_id, None)
        if clip is None:
            return
        self.used -= clip.facts.length
        self._cached -= clip.facts.length
        self._on_evict(request_id)
        # In the order of the calls: a clip that is back already must not lose its new file.
        async with self._moving:
            await self._in_thread(lambda: _delete(clip.path))

    def batches(self, size: int) -> Iterator[list[ClipFacts]]:
        """The facts of all cached clips, `size` at a time; what is cached meanwhile is left out."""
        names = iter(list(self._clips))
        while some := list(itertools.islice(names, size)):
            yield [self._clips[name].facts for name in some if name in self._clips]

    async def disown(self, facts: ClipFacts) -> bool:
        """Remove the very clip of these facts; False if its place is free or another's by now."""
        clip = self._clips.get(facts.request_id)
        if clip is None or clip.facts != facts:
            return False
        await self.remove(facts.request_id)
        return True

    async def _evict(self) -> None:
        if self._evictions is not None:
            self._evictions.inc()
        await self.remove(next(iter(self._clips)))

    async def _free_bytes(self) -> int:
        return await self._in_thread(lambda: shutil.disk_usage(self._root).free)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _open_whole(clip: CachedClip) -> int | None:
    """Open a clip's file; None if it is gone or is no longer the whole clip. Raises OSError."""
    try:
        fd = os.open(clip.path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    if os.fstat(fd).st_size != clip.facts.length:
        os.close(fd)
        return None
    return fd


def _move_in(path: Path, target: Path, facts: ClipFacts) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_facts(target.with_suffix(".json"), facts)
    path.replace(target)


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)


def _scan(root: Path) -> list[CachedClip]:
    """Cached clips, oldest first by last access; whatever is no whole clip is removed."""
    root.mkdir(parents=True, exist_ok=True)
    found: list[tuple[float, CachedClip]] = []
    for path in root.glob("*/*.mp4"):
        try:
            stat = path.stat()
        except FileNotFoundError:  # another process of this machine has evicted it
            continue
        facts = _facts_of(path, root)
        if facts is None or stat.st_size != facts.length:
            _delete(path)
        else:
            found.append((max(stat.st_atime, stat.st_mtime), CachedClip(path, facts)))
    for path in root.glob("*/*.json*"):
        if path.suffix == ".tmp" or not path.with_suffix(".mp4").exists():
            path.unlink(missing_ok=True)
    return [clip for _, clip in sorted(found, key=lambda item: item[0])]


def _facts_of(path: Path, root: Path) -> ClipFacts | None:
    """What is said beside a file, if it is said of a file of just that name."""
    stored = read_facts(path.with_suffix(".json"))
    if stored is None:
        return None
    name = keys.cached_name(stored.facts.request_id, stored.facts.etag)
    return stored.facts if path == root / f"{name}.mp4" else None
