"""Threads for file work, and the one border where the operating system's errors become ours.

Belongs here: running what blocks beside the event loop. Must not know: what that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from proxy.errors import BucketRefused, BucketUnavailable

THREADS = 8
"""Enough to keep a disk busy; fsync must not take the default executor's threads from others."""

_REFUSALS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EXDEV,
}
"""What only the owner can change; a full or broken disk may be better on the next attempt."""

P = ParamSpec("P")
T = TypeVar("T")


class Disk:
    """Threads for work that blocks, and the border where OSErrors become BucketErrors."""

    def __init__(self) -> None:
        """Start no thread before there is work for it."""
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="directory-bucket")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work in a thread. Work once begun is ended, whether waited for or not."""
        with mapped_errors():
            return await self.start(work, *args, **kwargs)

    def start(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """The same without waiting, and with the operating system's own errors."""
        call = functools.partial(work, *args, **kwargs)
        return asyncio.get_running_loop().run_in_executor(self.threads, call)

    async def close(self) -> None:
        """Wait for what is being written, then let go of the threads."""
        await asyncio.to_thread(self.threads.shutdown)


@contextlib.contextmanager
def mapped_errors() -> Iterator[None]:
    """Turn the operating system's errors into the bucket's."""
    try:
        yield
    except OSError as error:
        kind = BucketRefused if error.errno in _REFUSALS else BucketUnavailable
        named = error.strerror and error.filename
        raise kind(f"{error.filename}: {error.strerror}" if named else f"{error}") from error
