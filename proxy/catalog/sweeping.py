"""What sweeps ask of the catalog: what nobody told us of, what has to be looked at again.

Belongs here: planning in set-based pages, each short enough to hold SQLite's writer for
milliseconds, whatever the table's size. Must not know: when a sweep is made, the bucket, files.

Pages go by creation time and id, along the index of statuses: each reads what it returns and
nothing else, however many generations have other statuses. A page is looked at before it is
written to, because in most of them every job is there already.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Interval,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal,
    null,
    select,
    true,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import cursors, job_rows, rows
from proxy.catalog.engine import Catalog
from proxy.catalog.tables import MICROSECOND, generations, jobs
from proxy.clock import Clock
from proxy.errors import BadRequest
from proxy.records import Generation, Job, JobKind, Status

PAGE: Final = 4000
"""Generations that are looked at, and jobs that are filed, in one go."""

_STATUS: Final = {JobKind.MIRROR: Status.AVAILABLE, JobKind.RESOLVE: Status.PENDING}


class Filed(NamedTuple):
    """How many jobs a page filed, and after which place the next begins (None: it was the last)."""

    filed: int
    next: str | None


class Sweeping:
    """Plans sweeps. Every method raises CatalogUnavailable when the database is away.

    A place is what an earlier page returned; None, "", and what cannot be read mean the beginning.
    With `expires_after`, sources are expected to delete clips at that age.
    """

    def __init__(
        self, catalog: Catalog, *, clock: Clock | None = None, expires_after: timedelta | None
    ) -> None:
        """Take the open catalog."""
        self._catalog = catalog
        self._clock = clock or Clock()
        self._expires_after = expires_after

    # --- what nobody told us of -----------------------------------------------------------------

    async def file_unstored(
        self, before: datetime, after: str | None = None, limit: int = PAGE
    ) -> Filed:
        """File mirror jobs for clips made before that time which are not stored and have none.

        A job that is dead stays so: it is an answer, and is listed as one.
        """
        return await self._file(JobKind.MIRROR, before, after, limit)

    async def file_pending(
        self, before: datetime, after: str | None = None, limit: int = PAGE
    ) -> Filed:
        """File resolve jobs for generations begun before that time, of which only a model is known.

        Without a model fal cannot be asked.
        """
        return await self._file(JobKind.RESOLVE, before, after, limit)

    async def _file(self, kind: JobKind, before: datetime, after: str | None, limit: int) -> Filed:
        """File one page: find its end, see whether anything in it lacks a job, write those."""
        table = generations.c
        which = and_(table.status == _STATUS[kind], _behind(after))
        ending = select(table.created_at, table.request_id).where(which, table.created_at < before)
        ending = ending.order_by(*_ORDER).offset(limit - 1).limit(1)

        async def find_end(connection: AsyncConnection) -> tuple[datetime, str] | None:
            found = (await connection.execute(ending)).first()
            return None if found is None else (found[0], found[1])

        end = await self._catalog.read(find_end)
        if end is None:
            which = and_(which, table.created_at < before)
        else:  # and not `before` as well: SQLite stops its scan at the first bound it is given
            which = and_(which, _place() <= _place(*end))
        if kind is JobKind.RESOLVE:
            which = and_(which, table.fal_url.is_(None), table.model.is_not(None))
        which = and_(which, ~_has(kind))
        place = None if end is None else cursors.write(*end)

        async def look(connection: AsyncConnection) -> bool:
            return bool(await connection.scalar(select(exists().where(which))))

        if not await self._catalog.read(look):
            return Filed(0, place)

        async def write(connection: AsyncConnection) -> int:
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            filing = dialect.insert(jobs).from_select(
                ["request_id", "kind", "created_at", "due_at", "expires_at"],
                self._new_jobs(kind, which, on=connection.dialect.name),
            )
            return (await connection.execute(filing.on_conflict_do_nothing())).rowcount

        return Filed(await self._catalog.write(write), place)

    def _new_jobs(
        self, kind: JobKind, which: ColumnElement[bool], *, on: str
    ) -> Select[*tuple[Any, ...]]:
        """The jobs of a page, in the order in which everybody locks rows: that of their ids."""
        table = generations.c
        return (
            select(
                table.request_id,
                literal(kind, jobs.c.kind.type),
                table.created_at,
                literal(self._clock.now(), jobs.c.due_at.type),
                self._expiry(on) if kind is JobKind.MIRROR else null(),
            )
            .where(which)
            .order_by(table.request_id)
        )

    def _expiry(self, dialect: str) -> ColumnElement[Any]:
        if self._expires_after is None:
            return null()
        made = func.coalesce(generations.c.completed_at, generations.c.created_at)
        if dialect == "sqlite":  # microseconds, as all of its times
            return type_coerce(made, BigInteger) + self._expires_after // MICROSECOND
        timestamp = type_coerce(made, postgresql.TIMESTAMP(timezone=True))
        return timestamp + literal(self._expires_after, Interval())

    # --- what has to be looked at again ---------------------------------------------------------

    async def stored_after(self, place: str | None, limit: int) -> list[Generation]:
        """Return stored generations behind a place, oldest first; `place_of` names the next."""
        which = and_(generations.c.status == Status.STORED, _behind(place))
        return await self._read(rows.selection().where(which).order_by(*_ORDER).limit(limit))

    @staticmethod
    def place_of(row: Generation) -> str:
        """Name the place of a generation, to go on behind it."""
        return cursors.write(row.created_at, row.request_id)

    async def meanings(self, ids: Sequence[str]) -> dict[str, Generation]:
        """Return what the catalog means by each of some hundred ids; unknown ones are left out."""
        found = await self._read(rows.selection().where(generations.c.request_id.in_(ids)))
        return {row.request_id: row for row in found}

    # --- what somebody asked for ----------------------------------------------------------------

    async def count_unstored(
        self, *, model: str | None = None, since: datetime | None = None
    ) -> int:
        """Return how many clips that could be mirrored are not stored, of a model, made since."""
        table = generations.c
        query = select(func.count()).where(table.status == Status.AVAILABLE)
        if model is not None:
            query = query.where(table.model == model)
        if since is not None:
            query = query.where(table.created_at >= since)

        async def work(connection: AsyncConnection) -> int:
            return await connection.scalar(query) or 0

        return await self._catalog.read(work)

    async def jobs_of(self, ids: Sequence[str]) -> dict[str, list[Job]]:
        """Return the jobs of each of some thousand ids, dead ones too; ids without are left out."""
        query = job_rows.selection().where(jobs.c.request_id.in_(ids))

        async def work(connection: AsyncConnection) -> dict[str, list[Job]]:
            found: dict[str, list[Job]] = {}
            for row in await connection.execute(query):
                found.setdefault(row.request_id, []).append(job_rows.job(row))
            return found

        return await self._catalog.read(work)

    async def _read(self, query: Select[*tuple[Any, ...]]) -> list[Generation]:
        async def work(connection: AsyncConnection) -> list[Generation]:
            return [rows.generation(row) for row in await connection.execute(query)]

        return await self._catalog.read(work)


_ORDER: Final = (generations.c.created_at, generations.c.request_id)


def _place(*key: Any) -> ColumnElement[Any]:  # noqa: ANN401 - a time and an id, or nothing
    """A row's place among those of its status, or the given one."""
    if not key:
        return tuple_(*_ORDER)
    return tuple_(
        *(bindparam(None, value, column.type) for value, column in zip(key, _ORDER, strict=True))
    )


def _behind(place: str | None) -> ColumnElement[bool]:
    if place:
        with suppress(BadRequest):
            return _place() > _place(*cursors.read(place))
    return true()


def _has(kind: JobKind) -> ColumnElement[bool]:
    return exists().where(jobs.c.request_id == generations.c.request_id, jobs.c.kind == kind)
