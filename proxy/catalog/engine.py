"""Connections to the catalog's database, and the one border where its failures are translated.

Belongs here: running statements for so long and no longer, opening at the right schema, closing.
Must not know: how a driver is set up (`drivers.py`), what its exceptions mean (`away.py`), what the
schema is, or any statement beyond those that set up.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

import structlog
from sqlalchemy import Select, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from proxy.catalog import schema
from proxy.catalog.away import is_away
from proxy.catalog.drivers import (
    Limits,
    make_sqlite_file,
    plain_sqlite_engine,
    postgres_engine,
    sqlite_connections,
)
from proxy.catalog.in_loop import InLoop
from proxy.catalog.in_threads import InThreads, Work
from proxy.errors import CatalogUnavailable, SchemaOutdated, SettingsError
from proxy.telemetry.timings import Timings
from proxy.telemetry.values import FAILED, OK

# ruff: noqa: PLC0415 - alembic is imported only where there is something to migrate

T = TypeVar("T")

# PostgreSQL's advisory locks are named by 64 bits.
_SCHEMA_LOCK: Final = int.from_bytes(b"firstvie")
_LONGEST_STEP: Final = 3600.0
"""Seconds that one statement of a migration may take: an index over millions of rows takes some."""
_LONGEST_FILE_LOCK_WAIT: Final = 60.0
"""Seconds for which another process may be migrating the same SQLite file."""
_LONGEST_TABLE_LOCK_WAIT: Final = "10s"
"""Everyone else queues behind a migration that waits for a table, so it gives up early."""

log = structlog.get_logger()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn what means that the database is away into CatalogUnavailable."""
    try:
        yield
    except Exception as error:
        if is_away(error):
            raise CatalogUnavailable from error
        raise


class Connections(Protocol):
    """How a database's connections are used; raises what its driver raises."""

    async def read(self, work: Work[T]) -> T:
        """Let `work` read with a connection of its own."""
        ...

    async def write(self, work: Work[T]) -> T:
        """Let `work` read and write in one transaction."""
        ...

    async def close(self) -> None:
        """Close all of them; harmless when repeated."""
        ...


class Catalog:
    """An open catalog: runs what reads and what writes."""

    def __init__(self, connections: Connections, limits: Limits, times: Timings | None) -> None:
        """Take a database's connections; `open_catalog` makes some."""
        self._connections = connections
        self._times = times
        self._limits = limits
        self._running: set[asyncio.Task[Any]] = set()
        # SQLite has one writer. Waiting here is fair; in the database it would be polling.
        self._turn = asyncio.Lock() if isinstance(connections, InThreads) else None

    async def read(self, work: Work[T]) -> T:
        """Let `work` read with a connection of its own; each statement sees its own snapshot.

        It may await nothing but its connection. Raises CatalogUnavailable.
        """
        with self._timed("read"):
            return await self._apart(self._connections.read(work))

    def at_hand(
        self, statement: Select[*tuple[Any, ...]], given: tuple[str, ...]
    ) -> Sequence[Any] | None:
        """The first row that a statement selects by a key, at once; None: there is none.

        The statement is kept for good; `given` are its parameters, in their order. Raises
        BlockingIOError where that would mean to wait, as it does for any database but a local file.
        """
        if isinstance(self._connections, InThreads):
            with self._timed("read"):
                return self._connections.at_hand.first(statement, given)
        raise BlockingIOError(errno.EAGAIN, "the catalog is not a local file")

    async def write(self, work: Work[T]) -> T:
        """Let `work` read and write in one transaction: committed if it returns, else undone.

        On SQLite it holds the database's only write lock from the start, on PostgreSQL the rows
        that it selects `FOR UPDATE`. It may await nothing but its connection. Raises
        CatalogUnavailable, also when it may have been committed after all, so whatever is written
        must be harmless when repeated.
        """
        with self._timed("write"):
            return await self._apart(self._writing(work))

    @contextlib.contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        """Time what the database has answered, or has failed to; not whom nobody waited for."""
        began = time.perf_counter()
        try:
            yield
        except CatalogUnavailable:
            self._took(kind, FAILED, began)
            raise
        else:
            self._took(kind, OK, began)

    def _took(self, kind: str, result: str, began: float) -> None:
        if self._times is not None:
            self._times.labels(kind, result).observe(time.perf_counter() - began)

    async def _writing(self, work: Work[T]) -> T:
        if self._turn is None:
            return await self._connections.write(work)
        async with asyncio.timeout(self._limits.call):
            await self._turn.acquire()
        try:
            return await self._connections.write(work)
        finally:
            self._turn.release()

    async def _apart(self, running: Coroutine[Any, Any, T]) -> T:
        """Wait for a task of its own: a caller who gives up or is cancelled does not cut it off.

        A transaction that is cancelled in the middle costs its connection, and on SQLite can leave
        the write lock held until a busy timeout runs out. Viewers leave all the time; so the work
        goes on without them, bounded by the drivers' own timeouts.
        """
        task = asyncio.create_task(running)
        self._running.add(task)
        task.add_done_callback(self._finished)
        with _translated():
            async with asyncio.timeout(self._limits.call):
                return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits has it; nobody else needs to be told

    async def ping(self) -> None:
        """Ask the database for an answer; raises CatalogUnavailable when there is none."""
        await self.read(lambda connection: connection.execute(select(1)))

    async def close(self) -> None:
        """Let what is running end, and close every connection; harmless when repeated."""
        if self._running:
            await asyncio.wait(self._running, timeout=self._limits.call)
        await self._connections.close()


async def open_catalog(
    url: str,
    limits: Limits | None = None,
    *,
    migrate: bool | None = None,
    times: Timings | None = None,
) -> Catalog:
    """Open the catalog at `sqlite:///path` or `postgresql://…`, at the schema that is needed.

    An older or missing schema is migrated: with None in SQLite only, because there this process is
    alone with its file; several replicas share a PostgreSQL, and when its schema changes is for
    their owner to say. Several processes may do this at once. Raises SettingsError for an address
    that cannot be one, SchemaOutdated for a schema that may not be migrated, CatalogUnavailable if
    the database does not answer. None of them repeats the address: it may hold a password. `times`,
    by kind and result, observes every read and write.
    """
    limits = limits or Limits()
    catalog = await connect(url, limits, times)
    try:
        revision = await schema.current(catalog)
        if schema.is_behind(revision):
            if not (url.startswith("sqlite:") if migrate is None else migrate):
                raise SchemaOutdated
            await migrate_catalog(url, limits)
        elif revision != schema.HEAD:
            log.warning("the catalog's schema is newer than this firstview", revision=revision)
    except BaseException:
        await catalog.close()
        raise
    return catalog


async def migrate_catalog(url: str, limits: Limits | None = None) -> str | None:
    """Bring the catalog's schema to `schema.HEAD`; return the revision that it had, None if none.

    One transaction, so all of it or nothing; of several processes that try at once, one does it and
    the others find it done. A newer schema is left alone. Raises as `open_catalog` does.
    """
    limits = limits or Limits()
    with _translated():
        if url.startswith("sqlite:"):
            await make_sqlite_file(url, limits)
            return await asyncio.to_thread(_migrate_sqlite, url)
        engine = _postgres(url, replace(limits, command=_LONGEST_STEP))
        try:
            return await _migrate_postgres(engine)
        finally:
            await engine.dispose()


def _migrate_sqlite(url: str) -> str | None:
    from proxy.catalog.migrations import apply

    scripts = apply.load()
    with plain_sqlite_engine(url, _LONGEST_FILE_LOCK_WAIT).begin() as connection:
        return apply.upgrade(connection, scripts)


async def _migrate_postgres(engine: AsyncEngine) -> str | None:
    scripts = await asyncio.to_thread(_load_steps)
    from proxy.catalog.migrations import apply  # by now without reading any file

    async with engine.begin() as connection:
        await connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
        await connection.execute(text(f"SET LOCAL lock_timeout = '{_LONGEST_TABLE_LOCK_WAIT}'"))
        return await connection.run_sync(apply.upgrade, scripts)


def _load_steps() -> Any:  # noqa: ANN401 - alembic's scripts, which are not imported here
    from proxy.catalog.migrations import apply

    return apply.load()


async def connect(url: str, limits: Limits, times: Timings | None = None) -> Catalog:
    """A catalog at a schema that nobody has looked at; else as `open_catalog`."""
    if not url.startswith("sqlite:"):
        return Catalog(InLoop(_postgres(url, limits)), limits, times)
    with _translated():
        await make_sqlite_file(url, limits)
        connections = await asyncio.to_thread(sqlite_connections, url, limits)
    return Catalog(connections, limits, times)


def _postgres(url: str, limits: Limits) -> AsyncEngine:
    if url.partition(":")[0] not in {"postgresql", "postgres"}:
        raise SettingsError("FIRSTVIEW_DATABASE_URL must start with sqlite:/// or postgresql://")
    return postgres_engine(url, limits)
