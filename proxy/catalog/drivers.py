"""How SQLite and PostgreSQL are opened: bounded in number and in time, durable, each in its way.

Belongs here: what the drivers have to be told. Must not know: tables, or what an error means.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from proxy.catalog import addresses
from proxy.catalog.at_hand import AtHand
from proxy.catalog.in_threads import InThreads
from proxy.errors import SettingsError

# ruff: noqa: PLC0415 - asyncpg is imported only where PostgreSQL is used

WRITES: Final = "firstview_writes"
"""Execution option of connections that will write."""

_SQLITE_READERS: Final = 5
_SQLITE_MAPPED: Final = 256 * 1024 * 1024
"""Bytes of the file that are read where the page cache has them, without a system call a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long the catalog may keep a caller waiting, in seconds, and how many connections."""

    connect: float = 5.0
    """One connection, its handshake included; also the wait for a free one."""
    command: float = 10.0
    """One statement."""
    call: float = 15.0
    """One transaction, with its wait for a connection and for other writers."""
    connections: int = 10
    """Connections to PostgreSQL; SQLite has five readers and one writer at a time."""


async def make_sqlite_file(url: str, limits: Limits) -> None:
    """Make the file of `sqlite:///path`, if need be.

    Raises SettingsError, OSError, sqlite3.Error.
    """
    path = Path(addresses.sqlite_path(url))
    await asyncio.to_thread(_make_sqlite_file, path, limits.command)


def sqlite_connections(url: str, limits: Limits) -> InThreads:
    """The connections to the existing file of `sqlite:///path`. Raises SettingsError."""
    engine = _sqlite_engine(
        url,
        limits.command,
        poolclass=QueuePool,
        pool_size=_SQLITE_READERS + 1,
        max_overflow=0,
        pool_timeout=limits.connect,
    )
    at_hand = AtHand(addresses.sqlite_path(url), engine.dialect)
    return InThreads(engine, at_hand, readers=_SQLITE_READERS, writing={WRITES: True})


def plain_sqlite_engine(url: str, patience: float) -> Engine:
    """A synchronous engine for an existing file: for work of its own in a thread, not for serving.

    Its transactions hold the write lock from the start; `patience` is how many seconds they wait
    for it. Raises SettingsError.
    """
    return _sqlite_engine(url, patience, poolclass=NullPool, execution_options={WRITES: True})


def _sqlite_engine(url: str, patience: float, **more: Any) -> Engine:  # noqa: ANN401 - SQLAlchemy's
    engine = create_engine(
        # Built, not parsed: a question mark in a folder's name is not a query.
        URL.create("sqlite", database=addresses.sqlite_path(url)),
        # No implicit BEGIN by the driver: `_begin_sqlite` decides which transaction it is. A
        # connection is used by one thread at a time, but not always by the same one.
        connect_args={"isolation_level": None, "timeout": patience, "check_same_thread": False},
        hide_parameters=True,
        **more,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_sqlite_file(path: Path, patience: float) -> None:
    """Make the file if need be, and let its readers and its writer not wait for each other.

    The mode, WAL, is the file's own and stays. Two processes that switch it at once get "locked"
    without SQLite's usual waiting, so the waiting is done here.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience
    with closing(sqlite3.connect(path, timeout=patience)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_BUSY)
                if code != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return


def _set_up_sqlite(connection: DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA mmap_size = {_SQLITE_MAPPED}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A reader that becomes a writer inside a deferred transaction fails at once when another has
    # written meanwhile, however long the busy timeout is; a writer therefore starts as one.
    if connection.get_execution_options().get(WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def postgres_engine(url: str, limits: Limits) -> AsyncEngine:
    """An engine for `postgresql://…`; connects when it is used. Raises SettingsError."""
    import asyncpg

    address = addresses.for_asyncpg(url)

    async def connect(*_: object, **__: object) -> Any:  # noqa: ANN401 - asyncpg's connection
        # asyncpg reads the address itself, since it knows libpq's words (sslmode, several
        # hosts, target_session_attrs), which SQLAlchemy would pass on as unknown arguments.
        try:
            return await asyncpg.connect(
                address, timeout=limits.connect, command_timeout=limits.command
            )
        except ValueError:  # its message may repeat any part of the address
            raise SettingsError(
                "FIRSTVIEW_DATABASE_URL is not a usable PostgreSQL address"
            ) from None

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=limits.connections,
        max_overflow=0,
        pool_timeout=limits.connect,
        pool_pre_ping=True,  # a connection that died while idle is replaced, not handed out
        hide_parameters=True,
    )
