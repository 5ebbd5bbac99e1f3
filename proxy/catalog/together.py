"""Group commit: what arrives while one transaction runs is written by the next one, together.

Belongs here: gathering, telling each waiter its own result, being fair to the neighbours of a bad
item. Must not know: what is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from proxy.errors import CatalogUnavailable, Overloaded

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """Writes items with few transactions, one at a time.

    `write` takes up to `most` items and returns a result for each, in their order, once they are
    committed. Up to `queue` items wait for their turn.
    """

    def __init__(
        self, write: Callable[[list[T]], Awaitable[list[R]]], *, most: int, queue: int
    ) -> None:
        """Take what writes."""
        self._write = write
        self._most = most
        self._queue = queue
        self._waiting: dict[asyncio.Future[R], T] = {}
        self._writer: asyncio.Task[None] | None = None
        self._closed = False

    async def put(self, item: T) -> R:
        """Return what `write` returned for this item, after it was committed.

        Raises Overloaded if too many wait already or this was closed, CatalogUnavailable if the
        catalog was away for its batch, and what `write` raised for this item alone. A caller who
        is cancelled before its item's turn takes it back.
        """
        if self._closed or len(self._waiting) >= self._queue:
            raise Overloaded
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = item
        if self._writer is None:
            self._writer = asyncio.create_task(self._work())
        try:
            return await answer
        finally:
            self._waiting.pop(answer, None)

    async def close(self) -> None:
        """Take nothing more, and finish what waits; harmless when repeated."""
        self._closed = True
        if self._writer is not None:
            await asyncio.wait([self._writer])

    async def _work(self) -> None:
        """Write until nothing waits."""
        batch: dict[asyncio.Future[R], T] = {}
        try:
            while self._waiting:
                batch = self._next()
                await self._attempt(batch)
        finally:
            self._writer = None
            # Only a loop that is being torn down gets here with any of them unanswered.
            for answer in (*batch, *self._waiting):
                answer.cancel()

    def _next(self) -> dict[asyncio.Future[R], T]:
        some = list(self._waiting)[: self._most]
        return {answer: self._waiting.pop(answer) for answer in some}

    async def _attempt(self, batch: dict[asyncio.Future[R], T]) -> bool:
        """Write a batch; if one of several is bad, each alone. False: the catalog is away."""
        try:
            results = await self._write(list(batch.values()))
            answers = list(zip(batch, results, strict=True))
        except CatalogUnavailable as error:
            _away(batch, error)
            return False
        except Exception as error:  # noqa: BLE001 - it is whoever waits who must know
            if len(batch) > 1:
                return await self._one_by_one(batch)
            _refuse(next(iter(batch)), error)
        else:
            for answer, result in answers:
                if not answer.done():
                    answer.set_result(result)
        return True

    async def _one_by_one(self, batch: dict[asyncio.Future[R], T]) -> bool:
        rest = dict(batch)
        while rest:
            answer = next(iter(rest))
            if not await self._attempt({answer: rest.pop(answer)}):
                _away(rest, CatalogUnavailable())
                return False
        return True


def _away(batch: Iterable[asyncio.Future[R]], error: CatalogUnavailable) -> None:
    """Tell each waiter with an error of its own: a traceback belongs to one task."""
    for answer in batch:
        _refuse(answer, CatalogUnavailable(error.detail))


def _refuse(answer: asyncio.Future[R], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
