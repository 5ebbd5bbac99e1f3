"""PostgreSQL's connections: awaited in the event loop, from a pool.

Belongs here: which of them begin a transaction. Must not know: what is asked, what an error means,
how a connection is set up.
"""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.catalog.in_threads import Work

T = TypeVar("T")


class InLoop:
    """An engine's connections."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Own the engine from here on."""
        self._writers = engine
        # Every read is one statement: BEGIN and ROLLBACK around it would be two trips more.
        self._readers = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def read(self, work: Work[T]) -> T:
        """Let `work` read; each statement sees its own snapshot."""
        async with self._readers.connect() as connection:
            return await work(connection)

    async def write(self, work: Work[T]) -> T:
        """Let `work` read and write in one transaction."""
        async with self._writers.begin() as connection:
            return await work(connection)

    async def close(self) -> None:
        """Close every connection; harmless when repeated."""
        await self._writers.dispose()
