"""Near: whole clips on this machine, whether open, kept, cached, or the local bucket's own.

Belongs here: the order of the places that need no network, and keeping a clip that was found open.
Must not know: sources, flights, HTTP.
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import Executor

from proxy.delivery import identity
from proxy.delivery.own import Ownership
from proxy.looks import Looks
from proxy.media import boxes
from proxy.records import ClipFacts, Generation, Status
from proxy.storage import keys
from proxy.storage.bucket import Bucket
from proxy.storage.disk_cache import DiskCache
from proxy.storage.open_files import OpenFile, OpenFiles


class Near:
    """The places of this machine. Whoever is given a file by `open` releases it."""

    def __init__(
        self,
        bucket: Bucket,
        disk: DiskCache,
        files: OpenFiles,
        ownership: Ownership,
        executor: Executor,
    ) -> None:
        """Take the places, and threads to look into them."""
        self._looks = Looks()
        self._executor = executor
        self._bucket = bucket
        self._disk = disk
        self._files = files
        self._ownership = ownership

    def hot(self, request_id: str) -> OpenFile | None:
        """A clip that is open already; counts as use."""
        file = self._files.get(request_id)
        if file is not None:
            self._disk.touch(file)  # or the clip that everyone views would be evicted first
        return file

    def present(self, request_id: str) -> OpenFile | None:
        """A clip that is open already, or kept for its bucket; not acquired."""
        return self._files.get(request_id) or self._ownership.kept(request_id)

    async def has(self, request_id: str) -> bool:
        """Whether a whole clip seems to be here."""
        return self.present(request_id) is not None or await self.glance(request_id)

    async def glance(self, request_id: str) -> bool:
        """Whether a file of that name is in its last place, as `seems_here` sees it."""
        return await self._looks.take(self._executor, lambda: self.seems_here(request_id))

    def is_surely_fetched(self, row: Generation | None) -> bool:
        """Whether a clip that was not seen here may be fetched without opening its places again.

        Whoever fetches it looks again, with its lock in hand. Not one that a local bucket should
        have: no source could be left to fetch it from.
        """
        if row is None:
            return False
        stored_elsewhere = row.status is Status.STORED and not self._bucket.is_local
        return row.status is Status.AVAILABLE or stored_elsewhere

    def seems_here(self, request_id: str) -> bool:
        """Whether a file of that name is in its last place, whatever it holds. Blocks."""
        key = keys.clip_key(request_id)
        return self._disk.seems_here(request_id) or self._bucket.seems_here(key)

    async def open(self, request_id: str, row: Generation | None) -> OpenFile | None:
        """A whole clip, whatever the catalog means by its id; acquired for the caller."""
        file = self.present(request_id)
        if file is not None:
            self._disk.touch(file)
            return file.acquire()
        file = await self._disk.open(request_id)
        if file is None and self._bucket.is_local:
            file = await self._open_object(request_id, row)
        if file is None:
            return None
        present = self._files.get(request_id)
        if present is not None:  # another request opened it meanwhile
            file.release()
            return present.acquire()
        self._files.put(request_id, file)
        return file.acquire()

    def keep_open(self, fd: int, facts: ClipFacts) -> None:
        """Keep a whole clip open that another process has brought here, if it still has a name."""
        request_id = facts.request_id
        if self.present(request_id) is not None or os.fstat(fd).st_nlink == 0:
            return
        with contextlib.suppress(OSError):  # too many open files: it is found by its name as well
            tier = "bucket" if self._bucket.is_local else "disk"
            self._files.put(request_id, OpenFile(os.dup(fd), facts, tier))

    async def _open_object(self, request_id: str, row: Generation | None) -> OpenFile | None:
        found = await self._bucket.open_local(keys.clip_key(request_id))
        if found is None:
            return None
        facts = identity.facts_from_info(request_id, row, found.info)
        file = OpenFile(found.fd, facts, "bucket")
        meant = row is None or identity.same_clip(row, facts)
        if facts.length == 0 or found.info.altered or not meant:
            file.release()
            return None
        if keys.META_ETAG not in found.info.metadata:
            try:
                whole = await self._is_whole(file)
            except BaseException:
                file.release()
                raise
            if not whole:
                file.release()
                return None
        self._ownership.adopted(row, facts)
        return file

    @staticmethod
    async def _is_whole(file: OpenFile) -> bool:
        """Whether what somebody else has put there is a clip, and not the beginning of one."""
        return await file.read(None, boxes.is_whole_file, file.facts.length)

    def doubt(self, request_id: str) -> None:
        """A clip's open file was not what it should be: look at what is there at the next view."""
        self._files.drop(request_id)

    async def forget(self, request_id: str) -> None:
        """Nothing of the id's former clip is found here from now on."""
        await self._disk.forget(request_id)
        await self.let_go(request_id)

    async def let_go(self, request_id: str) -> None:
        """Let go of what this process has of an id that was forgotten, here or elsewhere."""
        self._files.drop(request_id)
        await self._ownership.disown(request_id)

    def let_go_of_all(self) -> None:
        """Look at everything anew at its next view."""
        self._files.close()
