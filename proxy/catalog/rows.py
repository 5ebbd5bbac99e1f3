"""Rows of the generations table: selected, locked, inserted, updated.

Belongs here: the statements that both databases understand. Must not know: why a row changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Select, bindparam, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog.engine import Catalog
from proxy.catalog.in_threads import Work
from proxy.catalog.tables import generations
from proxy.errors import CatalogUnavailable
from proxy.records import Generation

T = TypeVar("T")

_ATTEMPTS: Final = 10
_COLUMNS: Final = tuple(field.name for field in fields(Generation))
IDS_AT_ONCE: Final = 5000
"""Both databases take some 32,000 parameters in one statement."""


class Raced(Exception):
    """Another writer inserted the row between our look and our insert."""


def selection() -> Select[*tuple[Any, ...]]:
    """All columns of all rows."""
    return select(*(generations.c[name] for name in _COLUMNS))


# Built once: SQLAlchemy takes longer to build and to recognise a statement than to run it.
_LOCKING: Final = (
    selection()
    .where(generations.c.request_id.in_(bindparam("ids", expanding=True)))
    .order_by(generations.c.request_id)
    .with_for_update()
)
_INSERTING: Final = {
    name: dialect.insert(generations).on_conflict_do_nothing().returning(generations.c.request_id)
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}
_UPDATING: Final = (
    update(generations)
    .where(generations.c.request_id == bindparam("key"))
    .values({name: bindparam(name) for name in _COLUMNS if name != "request_id"})
)


def behind(created_at: datetime, request_id: str) -> ColumnElement[bool]:
    """The rows that a listing, newest first, shows after this one."""
    here, place = _position(created_at, request_id)
    return here < place


def not_behind(created_at: datetime, request_id: str) -> ColumnElement[bool]:
    """The other rows: those that it shows before this one, and this one."""
    here, place = _position(created_at, request_id)
    return here >= place


def _position(created_at: datetime, request_id: str) -> tuple[ColumnElement[Any], ...]:
    """What places a row in such a listing: each row's own, and that of the one given."""
    table = generations.c
    place = tuple_(
        bindparam(None, created_at, type_=table.created_at.type),
        bindparam(None, request_id, type_=table.request_id.type),
    )
    return tuple_(table.created_at, table.request_id), place


def generation(row: Sequence[Any]) -> Generation:
    """The record of a row that `selection` selected."""
    # By place: a page of rows looked up by name costs more than the query that finds them.
    return Generation(**dict(zip(_COLUMNS, row, strict=True)))


def _values(generation: Generation) -> dict[str, Any]:
    return {name: getattr(generation, name) for name in _COLUMNS}


async def lock(connection: AsyncConnection, ids: Iterable[str]) -> dict[str, Generation]:
    """Read rows and keep others from changing them until the transaction ends.

    In the order of their ids, always, so that two transactions never wait for each other. SQLite
    knows no FOR UPDATE and needs none: the transaction is the only writer.
    """
    wanted, found = sorted(ids), {}
    for start in range(0, len(wanted), IDS_AT_ONCE):
        some = {"ids": wanted[start : start + IDS_AT_ONCE]}
        for row in await connection.execute(_LOCKING, some):
            found[row.request_id] = generation(row)
    return found


async def write(
    connection: AsyncConnection, before: dict[str, Generation], after: dict[str, Generation]
) -> None:
    """Insert what is new and update what changed; raises Raced if "new" was no longer true."""
    new = [_values(after[key]) for key in sorted(after.keys() - before.keys())]
    if new:
        inserted = await connection.execute(_INSERTING[connection.dialect.name], new)
        if len(inserted.all()) < len(new):
            raise Raced
    changed = [
        _values(row) | {"key": key} for key, row in after.items() if row != before.get(key, row)
    ]
    if changed:
        for values in changed:
            del values["request_id"]
        await connection.execute(_UPDATING, changed)


async def unraced(catalog: Catalog, attempt: Work[T]) -> T:
    """Run a transaction, and again if another writer inserted a row that it took for new.

    A row that does not exist cannot be locked; but a second look finds it.
    """
    for _ in range(_ATTEMPTS):
        with suppress(Raced):
            return await catalog.write(attempt)
    raise CatalogUnavailable("The catalog is too busy")
