"""The disk budget and the disk cache: whole clips whose own copy is in a remote bucket.

Belongs here: how many bytes of local disk are spoken for, by whom, and the ways in and out of the
cache, for the event loop. Must not know: where clips come from. Nothing here is the only copy of
anything that is called stored.

Bytes are reserved before they are written, so that fills which run at once, in all processes of
this machine, cannot together overrun the budget; a reservation either becomes a cached clip or is
given back. What is cached is what the file system has (`cached_files`), what is counted is shared
(`shared`), and who makes room is the janitor.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final, TypeVar

import structlog
from prometheus_client import Counter

from proxy.looks import Looks
from proxy.records import ClipFacts
from proxy.storage import keys
from proxy.storage.cached_files import CachedFiles
from proxy.storage.descriptor import opened
from proxy.storage.free_space import FreeSpace
from proxy.storage.janitor import Janitor
from proxy.storage.open_files import OpenFile
from proxy.storage.shared import MOST_USES, Shared
from proxy.storage.trailer import SIZE as FACTS_SIZE

_LOOK: Final = 0.002
"""Seconds before a fill looks again whether there is room by now; doubles up to the longest."""
_LOOK_LONGEST: Final = 0.032

T = TypeVar("T")

log = structlog.get_logger()


class Reservation:
    """Bytes of the budget that are spoken for: `size` of a clip, and those of its facts."""

    __slots__ = ("_shared", "held", "since", "size")

    def __init__(self, shared: Shared, size: int, held: int) -> None:
        """Use `DiskCache.reserve`."""
        self._shared = shared
        self.held = held
        self.size = size
        self.since = shared.forgets.count
        """What was forgotten before is not meant by this clip."""

    def grow(self, more: Reservation) -> None:
        """Take another reservation's bytes."""
        self.size += more.size
        self.held += more.held
        more.pass_on()

    def release(self) -> None:
        """Give the bytes back; a second call gives nothing."""
        self._shared.claim(-self.held)
        self.pass_on()

    def pass_on(self) -> None:
        """The bytes are somebody else's by now."""
        self.size = self.held = 0


class DiskCache:
    """Cached clips of all processes of this machine, within a budget of bytes."""

    def __init__(
        self,
        root: Path,
        shared: Shared,
        *,
        max_bytes: int,
        keep_free: int,
        patience: float,
        executor: Executor,
        on_evict: Callable[[str], None],
        evictions: Counter | None = None,
    ) -> None:
        """Keep clips below `root`. Call `start`.

        `patience`: seconds that a fill may wait for room. `on_evict` hears of ids whose clip was
        taken away here on purpose.
        """
        self._shared = shared
        self._files = CachedFiles(root, shared)
        self._max_bytes = max_bytes
        self._patience = patience
        self._executor = executor
        self._looks = Looks()
        self._on_evict = on_evict
        self._evictions = evictions
        self._free = FreeSpace(root, keep_free, executor)
        self._waiting: list[int] = []
        self._uses = shared.uses
        self.janitor = Janitor(
            self._files,
            shared,
            max_bytes=max_bytes,
            keep_free=keep_free,
            evicted=self._evicted,
        )

    async def start(self) -> None:
        """Begin. What an earlier process left is served at once, and looked through meanwhile."""
        await self._in_thread(self._files.make)
        self.janitor.start()

    async def close(self) -> None:
        """Let another process be the janitor, and go through what is cached."""
        self._shared.upkeep_lock.give_up()
        await asyncio.to_thread(self.janitor.stop)

    # -- what there is ---

    def __len__(self) -> int:
        """How many clips are cached, by all processes of this machine."""
        return self._shared.clips

    @property
    def used(self) -> int:
        """Bytes that are cached or spoken for, by all processes of this machine."""
        return self._shared.used

    def seems_here(self, request_id: str) -> bool:
        """Whether there is a file of the clip. Blocks, shortly."""
        return self._files.has(request_id)

    async def open(self, request_id: str) -> OpenFile | None:
        """Open a cached clip and count it as used; the caller owns the result."""
        try:
            found = await self._open(request_id)
        except OSError as error:  # too many open files, say: the clip itself may be as good as ever
            log.warning("a cached clip cannot be opened", request_id=request_id, detail=str(error))
            return None
        if found is None:
            return None
        file = OpenFile(*found, "disk")
        self.touch(file)
        return file

    async def _open(self, request_id: str) -> tuple[int, ClipFacts] | None:
        with contextlib.suppress(BlockingIOError):
            return self._looks.here(lambda: self._files.open(request_id, may_mend=False))
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(self._executor, self._files.open, request_id)
        return await opened(opening, lambda found: found[0])

    def touch(self, file: OpenFile) -> None:
        """Count a clip as used; races between processes cost a count, and nothing else."""
        uses = self._uses[file.slot]
        if uses < MOST_USES:
            self._uses[file.slot] = uses + 1

    # -- room ---

    async def reserve(self, size: int) -> Reservation | None:
        """Speak for bytes; None if there is no room, and none was made in time.

        Nothing is evicted for a clip that would not fit in the end.
        """
        held = size + FACTS_SIZE
        if not await self._could_fit(held):
            return None
        if not await self._granted(held) and not await self._wait_for_room(held):
            return None
        self._free.spend(held)
        return Reservation(self._shared, size, held)

    async def _could_fit(self, held: int) -> bool:
        """Whether there would be room, were nothing cached."""
        if self._shared.reserved + held > self._max_bytes:
            return False
        return await self._free.left(held) + self._shared.cached >= 0

    async def _granted(self, held: int) -> bool:
        if not self._shared.reserve(held, self._max_bytes):
            return False
        enough = False
        try:
            enough = await self._free.left(held) >= 0
        finally:
            if not enough:
                self._shared.claim(-held)
        return enough

    async def _wait_for_room(self, held: int) -> bool:
        pause = _LOOK
        self._waiting.append(held)
        try:
            async with asyncio.timeout(self._patience):
                while True:
                    self._shared.want(max(self._waiting))
                    self.janitor.wake()
                    await asyncio.sleep(pause)
                    if await self._granted(held):
                        return True
                    if not await self._could_fit(held):
                        return False
                    pause = min(_LOOK_LONGEST, pause * 2)
        except TimeoutError:
            return False
        finally:
            self._waiting.remove(held)
            self._shared.want(max(self._waiting, default=0))

    def claim(self, size: int) -> Reservation:
        """Speak for bytes that are on the disk already, whether or not the budget has them."""
        held = size + FACTS_SIZE
        self._shared.claim(held)
        return Reservation(self._shared, size, held)

    async def grow(self, reservation: Reservation, size: int) -> bool:
        """Make a reservation hold at least `size` bytes; False if there is no room for that."""
        more = await self.reserve(max(size - reservation.size, reservation.size))
        if more is None:
            return False
        reservation.grow(more)
        return True

    # -- in and out ---

    async def adopt(
        self, path: Path, facts: ClipFacts, sha256: str, reservation: Reservation
    ) -> bool:
        """Move a whole, verified file into the cache; its reservation passes to here.

        False, with nothing done, if its id was forgotten since the bytes were spoken for. Raises
        OSError, with everything as it was before.
        """
        held, since = reservation.held, reservation.since
        move_in = functools.partial(
            self._files.move_in, path, facts, sha256, held=held, since=since
        )
        moving = asyncio.get_running_loop().run_in_executor(self._executor, move_in)
        try:
            await asyncio.shield(moving)
        finally:  # also when cancelled: the bytes belong to either, never to both
            await asyncio.wait({moving})
            if moving.exception() is None and moving.result():
                reservation.pass_on()
        self.janitor.wake()
        return moving.result()

    async def forget(self, request_id: str) -> None:
        """Remove a clip in every process of this machine; who is reading it keeps the bytes."""
        await self._in_thread(lambda: self._files.forget(request_id))
        self._on_evict(request_id)

    async def disown(self, facts: ClipFacts) -> bool:
        """Forget the very clip of these facts; False if its place is free or another's by now."""
        gone = await self._in_thread(lambda: self._files.disown(facts))
        if gone:
            self._on_evict(facts.request_id)
        return gone

    async def batches(
        self, size: int, part: int = 0, of: int = 1
    ) -> AsyncIterator[list[ClipFacts]]:
        """Facts of cached clips, about `size` at a time, read from their files.

        Of all folders every `of`-th one, beginning with `part`. From the first call on this is the
        process that looks; in any other there are none, as one is enough.
        """
        if not self._shared.upkeep_lock.take():
            return
        for folder in range(part, keys.CACHE_FOLDERS, of):
            facts = self._files.facts_in(folder)
            while batch := await self._in_thread(lambda: list(itertools.islice(facts, size))):  # noqa: B023 - read before the next folder's
                yield batch

    def _evicted(self) -> None:
        if self._evictions is not None:
            self._evictions.inc()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)
