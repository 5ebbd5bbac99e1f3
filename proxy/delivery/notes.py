"""Notes to the catalog: writes that nobody waits for, those of one clip in their order.

Belongs here: keeping the order, and surviving a catalog that is away. Must not know: what a note
says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from proxy.errors import FirstviewError

log = structlog.get_logger()


class Notes:
    """Writes beside the replies. A note that was lost is made again by the clip's next fill."""

    def __init__(self) -> None:
        """Begin without notes."""
        self._last: dict[str, asyncio.Task[None]] = {}

    def add(self, request_id: str, write: Callable[[], Awaitable[object]]) -> None:
        """Write as soon as the clip's earlier notes are written, or lost."""
        task = asyncio.create_task(self._write(self._last.get(request_id), write))
        self._last[request_id] = task
        task.add_done_callback(lambda done: self._forget(request_id, done))

    async def settled(self, request_id: str) -> None:
        """Wait until no earlier note of a clip can undo what its next write says."""
        last = self._last.get(request_id)
        if last is not None:
            await asyncio.wait({last})

    async def close(self, timeout: float) -> None:
        """Let the notes be written for `timeout` seconds, then give them up."""
        tasks = set(self._last.values())
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _write(
        self, before: asyncio.Task[None] | None, write: Callable[[], Awaitable[object]]
    ) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            await write()
        except FirstviewError as error:
            log.warning("the catalog missed a note", error=error.slug, detail=error.detail)
        except Exception:
            log.exception("a note to the catalog crashed")

    def _forget(self, request_id: str, done: asyncio.Task[None]) -> None:
        if self._last.get(request_id) is done:
            del self._last[request_id]
