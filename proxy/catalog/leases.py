"""What only one replica does at a time: a row that says who does it, until when, how far it came.

Belongs here: taking, prolonging and ending such a lease. Must not know: what is done under it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog.engine import Catalog
from proxy.catalog.tables import leases
from proxy.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to do what `name` means until `until`.

    `owner` names one taking of it. `due_at` is when the work was due, `position` how far it had
    come, None: at its beginning.
    """

    name: str
    owner: str
    until: datetime
    due_at: datetime | None
    position: str | None


class Leases:
    """The leases table. Every method raises CatalogUnavailable when the database is away."""

    def __init__(self, catalog: Catalog, *, clock: Clock | None = None) -> None:
        """Take the open catalog."""
        self._catalog = catalog
        self._clock = clock or Clock()

    async def take(
        self, name: str, owner: str, length: timedelta, *, due_only: bool = True
    ) -> Lease | None:
        """Take a lease for `length`, or None: somebody holds it, or (`due_only`) it is not due.

        A name that nobody has taken yet is due. One whose holder died is due again when its lease
        has run out, and goes on at the position that was noted last.
        """
        if not await self._catalog.read(
            lambda connection: self._is_free(connection, name, due_only=due_only)
        ):
            return None
        taker = f"{owner}/{secrets.token_hex(8)}"

        async def work(connection: AsyncConnection) -> Lease | None:
            now = self._clock.now()
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            await connection.execute(
                dialect.insert(leases).values(name=name).on_conflict_do_nothing()
            )
            taking = update(leases).where(
                leases.c.name == name, or_(leases.c.until.is_(None), leases.c.until <= now)
            )
            if due_only:
                taking = taking.where(or_(leases.c.due_at.is_(None), leases.c.due_at <= now))
            taking = taking.values(owner=taker, until=now + length)
            row = (await connection.execute(taking.returning(*leases.c))).first()
            return None if row is None else _lease(row)

        return await self._catalog.write(work)

    async def _is_free(self, connection: AsyncConnection, name: str, *, due_only: bool) -> bool:
        """Look first: who asks in vain, as most do, writes nothing."""
        query = select(leases.c.until, leases.c.due_at).where(leases.c.name == name)
        row = (await connection.execute(query)).first()
        now = self._clock.now()
        if row is None:
            return True
        held = row.until is not None and row.until > now
        early = due_only and row.due_at is not None and row.due_at > now
        return not held and not early

    async def extend(self, lease: Lease, length: timedelta, position: str | None = None) -> bool:
        """Keep a lease for `length` from now, and note how far the work is (None: as before).

        False: it ran out, and somebody else has taken it.
        """
        values: dict[str, Any] = {"until": self._clock.now() + length}
        if position is not None:
            values["position"] = position
        return await self._set(lease, values)

    async def finish(self, lease: Lease, *, due_in: timedelta, position: str | None) -> bool:
        """Give a lease back: the work is due again in `due_in`, and begins at `position`.

        False: it ran out, somebody else has taken it, and nothing changes.
        """
        due_at = self._clock.now() + due_in
        return await self._set(
            lease, {"owner": None, "until": None, "due_at": due_at, "position": position}
        )

    async def _set(self, lease: Lease, values: dict[str, Any]) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            mine = update(leases).where(leases.c.name == lease.name, leases.c.owner == lease.owner)
            setting = mine.values(values).returning(leases.c.name)
            return (await connection.execute(setting)).first() is not None

        return await self._catalog.write(work)


def _lease(row: Row[*tuple[Any, ...]]) -> Lease:
    return Lease(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name
