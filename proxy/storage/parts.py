"""The parts of one multipart upload, sent while the local file still grows.

R2 demands that all parts but the last are equal, so where each part lies is decided before the
first is sent: developers.cloudflare.com/r2/objects/multipart-objects/

Belongs here: which part is sent when, and how many at once. Must not know: how an upload ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from proxy.storage.s3_calls import SentPart

MAX_PARTS = 10_000
MIB = 1024 * 1024


def part_size(size: int, wanted: int) -> int:
    """Bytes of every part but the last: as wanted, or whole MiB, so that 10,000 are enough."""
    if -(-size // wanted) <= MAX_PARTS:
        return wanted
    return -(-size // (MAX_PARTS * MIB)) * MIB


SendPart = Callable[[int, int, int], Awaitable[SentPart]]
"""Send part `number` (from 1): `size` bytes from `offset` on."""


class Parts:
    """Tasks that send the parts of one file; a part that failed may be asked for again."""

    def __init__(self, size: int, each: int, at_once: int, send: SendPart) -> None:
        """Take the file's size, that of its parts, how many are sent at once, and by what."""
        self._size = size
        self._each = each
        self._send = send
        self._slots = asyncio.Semaphore(at_once)
        self._tasks: dict[int, asyncio.Task[SentPart]] = {}
        self.count = -(-size // each)

    def start(self, written: int) -> None:
        """Begin to send every part that lies wholly within the first `written` bytes."""
        whole = self.count if written >= self._size else written // self._each
        for number in range(1, whole + 1):
            if number not in self._tasks:
                self._tasks[number] = asyncio.create_task(self._send_one(number))

    async def raise_failure(self) -> None:
        """Raise the first part's error, if any part failed; the others are stopped."""
        for task in list(self._tasks.values()):
            if task.done() and (task.cancelled() or task.exception() is not None):
                await self.stop()
                task.result()

    async def wait(self) -> list[SentPart]:
        """Wait for all parts that were started; as soon as one fails, stop the rest and raise."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        await self.raise_failure()
        return [self._tasks[number].result() for number in sorted(self._tasks)]

    async def stop(self) -> None:
        """Stop what is on its way and forget what failed; parts that were sent are kept."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks = {
            number: task
            for number, task in self._tasks.items()
            if not task.cancelled() and task.exception() is None
        }

    async def drop(self) -> None:
        """Stop what is on its way and forget what was sent: the upload it belonged to has gone."""
        await self.stop()
        self._tasks = {}

    def md5s(self) -> list[bytes]:
        """The MD5 of each part in order, if all of them were sent; else an empty list."""
        sent = [self._tasks[number] for number in sorted(self._tasks)]
        whole = len(sent) == self.count and all(task.done() for task in sent)
        return [task.result().md5 for task in sent] if whole else []

    async def _send_one(self, number: int) -> SentPart:
        offset = (number - 1) * self._each
        async with self._slots:
            return await self._send(number, offset, min(self._each, self._size - offset))
