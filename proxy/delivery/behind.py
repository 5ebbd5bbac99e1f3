"""One piece of work that goes on while its owner is already at the next.

Belongs here: waiting for it, and ending with it. Must not know: what it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Self


class Behind:
    """At most one piece of work at a time; leaving waits for it, or cancels it if cancelled."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Begin the next piece; the last one must be done."""
        self._task = asyncio.create_task(work)

    async def done(self) -> None:
        """Wait until nothing is being done. Raises what the work raised."""
        if self._task is not None:
            await asyncio.wait({self._task})
            task, self._task = self._task, None
            task.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let what was begun end; its own error is of no interest beside another one."""
        if self._task is None:
            return
        if isinstance(error, asyncio.CancelledError):
            self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()
