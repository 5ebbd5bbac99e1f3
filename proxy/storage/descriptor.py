"""A descriptor that several users share: open for as long as any of them needs it.

Belongs here: having one opened and reading by it in a thread, and counting its users. Must not
know: what is behind it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Self, TypeVar

T = TypeVar("T")


async def opened(opening: asyncio.Future[T | None], fd_of: Callable[[T], int]) -> T | None:
    """What a thread opens; closed again if whoever waits for it is cancelled meanwhile."""

    def close(_opening: asyncio.Future[T | None]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            found = opening.result()
            if found is not None:
                os.close(fd_of(found))

    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(close)
        raise


class Descriptor:
    """An open file's descriptor; closed when nobody needs it any more."""

    __slots__ = ("_users", "fd")

    def __init__(self, fd: int) -> None:
        """Own the descriptor from here on; the maker is its first user."""
        self.fd = fd
        self._users = 1

    def acquire(self) -> Self:
        """Keep it open for one more user."""
        self._users += 1
        return self

    def release(self) -> None:
        """Give it up; the last user closes it, and with it the file's lock if that is held."""
        self._users -= 1
        if self._users == 0:
            os.close(self.fd)

    async def read(
        self, executor: Executor | None, reader: Callable[[int, int], T], length: int
    ) -> T:
        """What `reader` makes of the descriptor and `length`, in a thread. Raises what it raises.

        Whoever waits may be cancelled, and all users may leave, while the thread is reading: it is
        open until that ends, or its number could be another file's by then.
        """
        loop = asyncio.get_running_loop()
        reading = loop.run_in_executor(executor, reader, self.fd, length)
        self.acquire()
        reading.add_done_callback(lambda _: self.release())
        return await asyncio.shield(reading)
