"""Rows of the jobs table, changed inside the transactions of others.

Belongs here: the statements that file, restart and remove jobs in both databases. Must not know:
why a job is filed (that is `errands.py`), who claims it (`claims.py`).

Lock order, everywhere: generations before jobs, and rows of either in the order of their keys. A
transaction that has touched a job never asks for a generation, so no two wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningDelete

from proxy.catalog.rows import IDS_AT_ONCE
from proxy.catalog.tables import jobs
from proxy.records import Job, JobKind

Key = tuple[str, JobKind]
"""What names a job: the generation's id, and what is to be done."""

JOBS_AT_ONCE: Final = IDS_AT_ONCE * len(JobKind)

AFTERLIFE: Final = timedelta(days=1_826_000)
"""A dead job's `due_at` lies 5,000 years behind its death: it is never due, an index of what is
due never meets it, and dead ones still come in the order of their deaths."""

DEAD_BEYOND: Final = datetime(4000, 1, 1, tzinfo=UTC)
"""No living job is due as late as this."""

MAX_ERROR: Final = 2000
"""Characters of an error that are kept."""

_COLUMNS: Final = tuple(field.name for field in fields(Job))


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to file. `created_at` is when its *generation* began: "newest" means newest clip."""

    request_id: str
    kind: JobKind
    asked: bool = False
    expires_at: datetime | None = None
    created_at: datetime


def selection() -> Select[*tuple[Any, ...]]:
    """All columns of all jobs."""
    return select(*(jobs.c[name] for name in _COLUMNS))


def job(row: Row[*tuple[Any, ...]]) -> Job:
    """The record of a selected row; a dead job's `due_at` is its death."""
    found = Job(**row._mapping)  # noqa: SLF001 - SQLAlchemy's documented name
    return found if found.dead_at is None else replace(found, due_at=found.dead_at)


def place(job: Job) -> datetime:
    """Where a job stands among all others: its `due_at` as it is kept."""
    return job.due_at if job.dead_at is None else job.dead_at + AFTERLIFE


def excerpt(error: str) -> str:
    """What is kept of an error; PostgreSQL takes no NUL in a text."""
    return error.replace("\0", "")[:MAX_ERROR]


async def file(
    connection: AsyncConnection, new: Iterable[NewJob], now: datetime, *, revive: bool = False
) -> set[Key]:
    """File jobs; return those that were not there, were dead, or were not asked for before.

    A living job learns that it is asked for, never the opposite, and is then due at once unless it
    is running. A dead one stays dead, unless `revive`. Nothing else of a filed job changes.
    """
    rows = [
        {
            "request_id": item.request_id,
            "kind": item.kind,
            "asked": item.asked,
            "expires_at": item.expires_at,
            "created_at": item.created_at,
            "due_at": now,
        }
        for _, item in sorted(_merged(new).items())
    ]
    if not rows:
        return set()
    filing = _filing(connection.dialect.name, revive=revive)
    return _keys((await connection.execute(filing, rows)).all())


@cache  # to build it takes longer than to run it
def _filing(dialect_name: str, *, revive: bool) -> Any:  # noqa: ANN401 - SQLAlchemy's
    dialect = sqlite if dialect_name == "sqlite" else postgresql
    inserting = dialect.insert(jobs)
    said, dead = inserting.excluded, jobs.c.dead_at.is_not(None)
    hurried = and_(said.asked, ~jobs.c.asked, ~dead)
    running = and_(~dead, jobs.c.lease_until > said.due_at)
    filing = inserting.on_conflict_do_update(
        index_elements=[jobs.c.request_id, jobs.c.kind],
        # No values of its own: what is bound behind VALUES is not sent in batches.
        set_={
            "asked": or_(jobs.c.asked, said.asked),
            "expires_at": func.coalesce(said.expires_at, jobs.c.expires_at),
            "due_at": case((running, jobs.c.due_at), else_=said.due_at),
            "attempts": case((dead, literal_column("0")), else_=jobs.c.attempts),
            "dead_at": null(),
        },
        where=or_(hurried, dead) if revive else hurried,
    )
    return filing.returning(jobs.c.request_id, jobs.c.kind)


def _merged(new: Iterable[NewJob]) -> dict[Key, NewJob]:
    """One per key: no statement may meet a row twice."""
    merged: dict[Key, NewJob] = {}
    for item in new:
        key = (item.request_id, item.kind)
        known = merged.get(key, item)
        merged[key] = replace(item, asked=item.asked or known.asked)
    return merged


async def lock(connection: AsyncConnection, ids: Iterable[str]) -> None:
    """Lock all jobs of these ids, for several statements that each change some of them."""
    for some in chunks(sorted(set(ids))):
        await connection.execute(_LOCKING, {"ids": some})


_LOCKING: Final = (
    select(jobs.c.request_id)
    .where(jobs.c.request_id.in_(bindparam("ids", expanding=True)))
    .order_by(jobs.c.request_id, jobs.c.kind)
    .with_for_update()
)


async def restart(
    connection: AsyncConnection, ids: Iterable[str], kind: JobKind, now: datetime
) -> set[Key]:
    """Begin jobs anew: alive, due, without failures; return those that there were.

    Their leases are dropped: a worker that is still busy with what the id meant before may not
    report on it any more.
    """
    found: set[Key] = set()
    for some in chunks(sorted(set(ids))):
        mine = and_(jobs.c.request_id.in_(some), jobs.c.kind == kind)
        found |= await begin_anew(connection, mine, now)
    return found


async def begin_anew(
    connection: AsyncConnection, which: ColumnElement[bool], now: datetime
) -> set[Key]:
    """Let some thousand of those jobs begin anew; return them."""
    values = {
        "lease_owner": None,
        "lease_until": None,
        "attempts": 0,
        "due_at": now,
        "dead_at": None,
    }
    beginning = update(jobs).where(_locked(which)).values(values)
    beginning = beginning.returning(jobs.c.request_id, jobs.c.kind)
    return _keys((await connection.execute(beginning)).all())


async def remove(
    connection: AsyncConnection, ids: Iterable[str], kind: JobKind | None = None
) -> set[Key]:
    """Remove jobs of one kind or of every kind, running ones too; return those that there were."""
    found: set[Key] = set()
    for some in chunks(sorted(set(ids))):
        given = {"ids": some} if kind is None else {"ids": some, "kind": kind}
        removing = _removing(one_kind=kind is not None)
        found |= _keys((await connection.execute(removing, given)).all())
    return found


@cache  # as above
def _removing(*, one_kind: bool) -> ReturningDelete[tuple[str, JobKind]]:
    of_ids = jobs.c.request_id.in_(bindparam("ids", expanding=True))
    which = and_(of_ids, jobs.c.kind == bindparam("kind")) if one_kind else of_ids
    return delete(jobs).where(_locked(which)).returning(jobs.c.request_id, jobs.c.kind)


def _locked(which: ColumnElement[bool]) -> ColumnElement[bool]:
    """Some thousand of these jobs, locked in the order of their keys."""
    query = select(jobs.c.request_id, jobs.c.kind).where(which)
    ordered = query.order_by(jobs.c.request_id, jobs.c.kind).limit(JOBS_AT_ONCE)
    # Not correlated: the statement around it changes the same table.
    return tuple_(jobs.c.request_id, jobs.c.kind).in_(ordered.with_for_update().correlate(None))


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Split ids into what one statement takes."""
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield ids[start : start + IDS_AT_ONCE]


def _keys(found: Iterable[Row[*tuple[Any, ...]]]) -> set[Key]:
    return {(row.request_id, row.kind) for row in found}
