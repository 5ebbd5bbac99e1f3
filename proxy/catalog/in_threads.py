"""SQLite's connections: each piece of work is one trip to a thread, whatever it asks there.

Belongs here: running work that awaits nothing but its connection, without an event loop. Must not
know: what is asked, what an error means, how a connection is set up.

A driver for SQLite that awaits makes a trip to its thread for every step of every statement: five
for a row read by its key, which is 250 us where one trip is 90.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog.at_hand import AtHand

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]


class InThreads:
    """An engine's connections: as many readers as there are threads, and one writer at a time."""

    def __init__(
        self, engine: Engine, at_hand: AtHand, *, readers: int, writing: dict[str, Any]
    ) -> None:
        """Own the engine from here on; `writing` are the options of a connection that writes.

        `at_hand` reads on the event loop what is there without waiting.
        """
        self._engine = engine
        self.at_hand = at_hand
        self._writer = engine.execution_options(**writing)
        self._reads = ThreadPoolExecutor(readers, thread_name_prefix="catalog-read")
        self._writes = ThreadPoolExecutor(1, thread_name_prefix="catalog-write")

    async def read(self, work: Work[T]) -> T:
        """Let `work` read; each statement sees its own snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._reads, self._read, work)

    async def write(self, work: Work[T]) -> T:
        """Let `work` read and write in one transaction."""
        return await asyncio.get_running_loop().run_in_executor(self._writes, self._write, work)

    def _read(self, work: Work[T]) -> T:
        with self._engine.connect() as connection:
            return _run(work, connection)

    def _write(self, work: Work[T]) -> T:
        with self._writer.begin() as connection:
            return _run(work, connection)

    async def close(self) -> None:
        """Wait for what is running, and close every connection; harmless when repeated."""
        self.at_hand.close()
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._reads.shutdown()
        self._writes.shutdown()
        self._engine.dispose()


class _Awaited:
    """A connection whose answers are there as soon as they are awaited: AsyncConnection's face."""

    def __init__(self, connection: Connection) -> None:
        self.sync_connection = connection

    @property
    def sync_engine(self) -> Engine:
        return self.sync_connection.engine

    @property
    def dialect(self) -> Dialect:
        return self.sync_connection.dialect

    async def execute(self, *given: Any) -> Any:  # noqa: ANN401 - as the connection's own
        return self.sync_connection.execute(*given)

    async def scalar(self, *given: Any) -> Any:  # noqa: ANN401
        return self.sync_connection.scalar(*given)

    async def scalars(self, *given: Any) -> Any:  # noqa: ANN401
        return self.sync_connection.scalars(*given)

    async def exec_driver_sql(self, *given: Any) -> Any:  # noqa: ANN401
        return self.sync_connection.exec_driver_sql(*given)

    async def run_sync(self, work: Callable[[Connection], T]) -> T:
        return work(self.sync_connection)


def _run(work: Work[T], connection: Connection) -> T:
    steps = work(cast("AsyncConnection", _Awaited(connection))).__await__()
    try:
        next(steps)
    except StopIteration as end:
        return cast("T", end.value)
    raise AssertionError("what is done in a transaction may await nothing but its connection")
