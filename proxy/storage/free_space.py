"""What is free on the disk, asked seldom: in between, what was granted counts as written.

Belongs here: the floor of free bytes. Must not know: who writes, or how room is made.
"""

from __future__ import annotations

import asyncio
import math
import os
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

_BELIEVED: Final = 1.0
"""Seconds for which a figure that leaves enough is believed; one that does not is never."""


class FreeSpace:
    """The disk below one folder, of which `keep_free` bytes are left alone."""

    def __init__(self, root: Path, keep_free: int, executor: Executor) -> None:
        """Take the folder; it is asked on the executor's threads."""
        self._root = root
        self._keep_free = keep_free
        self._executor = executor
        self._free = 0
        self._asked_at = -math.inf

    async def left(self, size: int) -> int:
        """Bytes above the floor once `size` more are written; less than none if too few."""
        loop = asyncio.get_running_loop()
        left = self._free - size - self._keep_free
        if left < 0 or loop.time() - self._asked_at > _BELIEVED:
            self._asked_at = loop.time()
            self._free = await loop.run_in_executor(self._executor, free_bytes, self._root)
        return self._free - size - self._keep_free

    def spend(self, size: int) -> None:
        """Bytes are going to be written, whatever the disk says just now."""
        self._free -= size


def free_bytes(root: Path) -> int:
    """Bytes that whoever is not root may still write. Blocks."""
    disk = os.statvfs(root)
    return disk.f_bavail * disk.f_frsize
