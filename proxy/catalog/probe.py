"""What a database says of itself, and whether it can be written to, for `firstview doctor`.

Belongs here: questions that leave nothing behind. Must not know: what the answers mean.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog.engine import Catalog
from proxy.catalog.tables import generations
from proxy.records import Status


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server: its version as 150004, connections for us and in use, its time."""

    version: int
    most: int
    used: int
    now: datetime


class _Undo(Exception):
    """Ends a transaction without keeping it."""


async def server(catalog: Catalog) -> Server:
    """Ask a PostgreSQL server about itself. Raises CatalogUnavailable."""
    return await catalog.read(_server)


async def write_and_undo(catalog: Catalog, now: datetime) -> None:
    """Write a row in a transaction that is undone. Raises CatalogUnavailable."""

    async def work(connection: AsyncConnection) -> None:
        row = {
            "request_id": f"firstview-doctor-{secrets.token_hex(8)}",
            "status": Status.PENDING,
            "created_at": now,
        }
        await connection.execute(generations.insert().values(**row))
        raise _Undo

    try:
        await catalog.write(work)
    except _Undo:
        return


async def _server(connection: AsyncConnection) -> Server:
    question = text(
        "SELECT current_setting('server_version_num')::int, current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int,"
        " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        " AND pid <> pg_backend_pid()), clock_timestamp()"
    )
    row = (await connection.execute(question)).one()
    return Server(version=row[0], most=row[1], used=row[2], now=row[3])
