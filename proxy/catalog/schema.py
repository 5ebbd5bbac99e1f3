"""Which revision of the schema this firstview needs, and which one a catalog has.

Belongs here: the revisions by name, and reading the one that is recorded. Must not know: what any
of them does, and alembic, whose import would cost every start a quarter of a second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

REVISIONS: Final = ("0001", "0002", "0003")
"""All that this firstview knows, oldest first; see `migrations/versions`."""

HEAD: Final = REVISIONS[-1]
"""The one that this firstview needs."""

_IS_RECORDED: Final = {
    "sqlite": text("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"),
    "postgresql": text("SELECT 1 WHERE to_regclass('alembic_version') IS NOT NULL"),
}


class Reading(Protocol):
    """What is needed of a catalog; `proxy.catalog.engine.Catalog` keeps it."""

    async def read(self, work: Callable[[AsyncConnection], Awaitable[str | None]], /) -> str | None:
        """Let `work` read with a connection of its own."""
        ...


async def current(catalog: Reading) -> str | None:
    """Return the catalog's revision, None if none is recorded. Raises CatalogUnavailable."""
    return await catalog.read(_recorded)


async def _recorded(connection: AsyncConnection) -> str | None:
    is_recorded = _IS_RECORDED[connection.dialect.name]
    if (await connection.execute(is_recorded)).first() is None:
        return None
    found = await connection.execute(text("SELECT max(version_num) FROM alembic_version"))
    revision: str | None = found.scalar()
    return revision


def is_behind(revision: str | None) -> bool:
    """Say whether a catalog at `revision` lacks what this firstview needs.

    A revision that is not known is a newer release's, and lacks nothing: releases expand the schema
    first, and take away only what no released firstview uses any more.
    """
    return revision is None or revision in REVISIONS[:-1]
