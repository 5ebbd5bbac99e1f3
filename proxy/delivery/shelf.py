"""The shelf: the local copy of a verified clip, from its spool file to its last place.

Belongs here: writing beside it what it is, moving it, clearing it away; with no moment in which the
clip can be read nowhere. Must not know: the bucket's protocol, the catalog, retries.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

import structlog

from proxy.delivery.kept import Kept
from proxy.errors import CorruptClip
from proxy.media import mp4
from proxy.records import MediaFacts
from proxy.storage import spool_file
from proxy.storage.disk_cache import DiskCache, Reservation
from proxy.storage.durable import digest_of
from proxy.storage.open_files import OpenFile, OpenFiles

T = TypeVar("T")

log = structlog.get_logger()


class Shelf:
    """Local copies, on their way to the disk cache or to a local bucket's own file."""

    def __init__(
        self,
        disk: DiskCache,
        files: OpenFiles,
        executor: Executor,
        behind: Executor,
        *,
        keeps: bool = True,
    ) -> None:
        """Take the places; without `keeps` no copy is kept of a clip that its bucket has.

        `behind` has the threads for what nobody waits for.
        """
        self._keeps = keeps
        self._disk = disk
        self._files = files
        self._executor = executor
        self._behind = behind

    async def write(self, kept: Kept, *, durable: bool) -> None:
        """Make the clip survive this process; a disk that refuses costs only that."""
        try:
            await self.in_thread(lambda: kept.write(durable=durable))
        except OSError as error:
            log.warning("a kept clip cannot outlive this process", detail=str(error))

    async def digest(self, file: OpenFile) -> str:
        """Hex SHA-256 of a clip, from its file. Raises CorruptClip if that cannot be read."""
        try:
            return await file.read(self._behind, digest_of, file.facts.length)
        except OSError as error:
            msg = f"the local file cannot be read: {error}"
            raise CorruptClip(msg) from error

    async def describe(self, file: OpenFile) -> MediaFacts | None:
        """What the mp4 says of itself, if it does. Raises OSError if it cannot be read."""
        return await file.read(self._executor, mp4.describe_file, file.facts.length)

    async def settle(self, kept: Kept, *, linked: bool) -> None:
        """Give the file its last place: the disk cache, unless the bucket has `linked` it."""
        if linked:
            file = OpenFile(os.dup(kept.file.fd), kept.facts, "bucket")
            self._files.put(kept.facts.request_id, file)
        else:
            sha256 = kept.sha256 or await self.digest(kept.file)
            file = OpenFile(os.dup(kept.file.fd), kept.facts, "disk")
            await self.place(kept.path, file, sha256, kept.reservation)

    async def place(
        self, path: Path, file: OpenFile, sha256: str, reservation: Reservation
    ) -> bool:
        """Move a file into the disk cache; if that is impossible, it is not kept at all.

        As it is if its id was purged or re-pointed meanwhile, in whichever process.
        """
        request_id = file.facts.request_id
        if not self._keeps:
            reservation.release()
            await self._remove(path, file)
            return True
        try:
            adopted = await self._disk.adopt(path, file.facts, sha256, reservation)
        except OSError as error:
            log.warning("the disk cache failed", request_id=request_id, detail=str(error))
            adopted = False
        if adopted:
            await self.in_thread(lambda: spool_file.unsay(file.fd, path))
            self._files.put(request_id, file)
        else:
            reservation.release()
            await self._remove(path, file)
        return adopted

    async def _remove(self, path: Path, file: OpenFile) -> None:
        await self.in_thread(lambda: spool_file.remove(file.fd, path))
        file.release()

    async def discard(self, kept: Kept) -> None:
        """Clear a kept clip away; a second call does nothing."""
        if kept.discarded:
            return
        kept.discarded = True
        kept.reservation.release()
        await self.in_thread(kept.delete)
        kept.file.release()  # and with it the lock: nobody makes a file of that name before this

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run what blocks on the disk's threads."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)
