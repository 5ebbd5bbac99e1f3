"""The aftermath: what processes that ended have left in the spool is taken up or cleared away.

Belongs here: keeping their whole clips, and having brought in what was on its way. Must not know:
viewers, fills, how a clip is stored (`storing.py`), what a file left behind looks like
(`leftovers.py`).
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from proxy.delivery.commit import Commits
from proxy.delivery.kept import Kept
from proxy.delivery.ledger import Ledger
from proxy.delivery.leftovers import Leftovers, find_leftovers, forget, id_of, let_go, size_of
from proxy.delivery.shelf import Shelf
from proxy.delivery.storing import Storing
from proxy.errors import CatalogError
from proxy.settings import Settings
from proxy.storage.disk_cache import DiskCache

_LOOK_EVERY: Final = 5.0
"""Seconds between two looks for what processes that ended have left in the spool."""
_QUIET_FOR: Final = 3.0
"""Seconds that such a file is left to those who follow it, and go on with it at once."""
_MUCH: Final = 1024**3
"""Bytes to be read at the start from which on somebody may wonder what takes so long."""

log = structlog.get_logger()


class Aftermath:
    """Sees to what this process's predecessor left, and then any other of this machine."""

    def __init__(
        self,
        settings: Settings,
        *,
        storing: Storing,
        commits: Commits,
        ledger: Ledger,
        shelf: Shelf,
        disk: DiskCache,
        spool_dir: Path,
    ) -> None:
        """Take who stores the whole clips, and who clears the bucket of what was begun."""
        self._settings = settings
        self._storing = storing
        self._kept = storing.clips
        self._commits = commits
        self._ledger = ledger
        self._shelf = shelf
        self._disk = disk
        self._spool_dir = spool_dir
        self._left = Leftovers()

    async def load(self) -> None:
        """Find what an earlier process left, before anything is filled here."""
        size = await self._shelf.in_thread(partial(size_of, self._spool_dir))
        if size >= _MUCH:
            log.info("reading what an earlier process left, before anybody is served", bytes=size)
        self._left = await self._take_up(0.0)
        if self._kept:
            log.info("clips are waiting for the bucket", count=len(self._kept))

    async def run(self) -> None:
        """Clear away and have mirrored what other processes were at when they ended, for ever.

        Files are forgotten only when both are done: this process may end as well.
        """
        left = self._left
        unfinished = [id_of(path) for path in (*left.begun, *left.useless)]
        await asyncio.gather(
            self._commits.clear([*unfinished, *self._kept]), self._have_mirrored(unfinished)
        )
        asked = set(unfinished)
        while True:
            left = await self._look_again(left.useless)
            if left.whole:
                log.info("clips of a process that ended are kept here", count=len(left.whole))
                self._storing.retry_now()
            unfinished = [id_of(path) for path in (*left.begun, *left.useless)]
            await self._have_mirrored([name for name in unfinished if name not in asked])
            asked = set(unfinished)

    async def _take_up(self, quiet_for: float) -> Leftovers:
        """Keep the whole clips of processes that ended; return what else they left."""
        left = await self._shelf.in_thread(
            lambda: find_leftovers(self._spool_dir, quiet_for=quiet_for)
        )
        for found in left.whole:
            if found.facts.request_id in self._kept:
                os.close(found.fd)  # for the next look
                continue
            reservation = self._disk.claim(found.facts.length)
            self._kept[found.facts.request_id] = Kept.from_disk(found, reservation)
        return left

    async def _look_again(self, useless: list[Path]) -> Leftovers:
        """Forget what has been seen to, and look after a while; a failing disk costs one look."""
        try:
            await self._shelf.in_thread(partial(forget, useless))
            await asyncio.sleep(_LOOK_EVERY)
            left = await self._take_up(_QUIET_FOR)
            await self._let_go_of_stored(left.begun)
        except OSError as error:
            log.warning("cannot look for what processes left", detail=str(error))
            await asyncio.sleep(_LOOK_EVERY)
            return Leftovers()
        else:
            return left

    async def _let_go_of_stored(self, begun: list[Path]) -> None:
        """Clear away what was begun here of clips that another machine has stored meanwhile."""
        stored = [path for path in begun if await self._ledger.has_stored(id_of(path))]
        if stored:
            await self._shelf.in_thread(partial(let_go, stored))

    async def _have_mirrored(self, request_ids: list[str]) -> None:
        """Let jobs bring in what was on its way, viewers or no viewers.

        Their jobs may not have been filed yet. Tried until the catalog has heard.
        """
        wait = self._settings.bucket_retry_wait
        while request_ids:
            try:
                await self._ledger.wanted(request_ids)
            except CatalogError as error:
                log.info("cannot ask for unfinished clips yet", detail=error.detail)
                await asyncio.sleep(wait)
                wait = min(self._settings.bucket_retry_max_wait, wait * 2)
            else:
                log.info("unfinished clips are going to be mirrored", count=len(request_ids))
                return
