"""Listing and counting jobs, at a million of them.

Belongs here: the pages of a listing and the figures for the metrics. Must not know: who reads them.

Both follow the index of (kind, due_at), in which dead jobs lie behind all living ones: a page is a
range of it, and the counts of due, later and dead jobs need no row. Only the running ones are told
from waiting ones by their rows: among those that are due soonest, as leases are short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import cursors, job_rows
from proxy.catalog.pages import MAX_PAGE, Page
from proxy.catalog.tables import jobs
from proxy.errors import BadRequest
from proxy.records import Job, JobKind, JobState

_RUNNING_AMONG: Final = 10_000


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Jobs by kind and state, all of them named; seconds by which the oldest due one is late.

    Running ones are counted among the 10,000 living ones that are due soonest, others as waiting.
    """

    by_state: Mapping[tuple[JobKind, JobState], int]
    oldest_due: Mapping[JobKind, float]


# --- pages --------------------------------------------------------------------------------------


async def page(
    connection: AsyncConnection,
    now: datetime,
    *,
    state: JobState | None,
    kinds: Sequence[JobKind],
    after: str | None,
    limit: int,
) -> Page[Job]:
    """Return jobs in the order in which they are due, those behind `after`.

    Raises BadRequest for an `after` that is no place.
    """
    limit = max(1, min(limit, MAX_PAGE))
    behind = None if after is None else _behind(after)
    found: list[Job] = []
    for kind in kinds:
        query = job_rows.selection().where(jobs.c.kind == kind)
        if state is not None:
            query = query.where(_in_state(state, now))
        if behind is not None:
            query = query.where(behind)
        ordered = query.order_by(jobs.c.due_at, jobs.c.request_id).limit(limit + 1)
        found += [job_rows.job(row) for row in await connection.execute(ordered)]
    found.sort(key=lambda job: (job_rows.place(job), job.request_id, job.kind))
    items = tuple(found[:limit])
    return Page(items, _cursor(items[-1]) if len(found) > limit else None)


def _in_state(state: JobState, now: datetime) -> ColumnElement[bool]:
    """The jobs that `Job.state` says to be in this state."""
    later = _later(now)
    if state is JobState.DEAD:
        return jobs.c.due_at > job_rows.DEAD_BEYOND
    if state is JobState.DUE:
        return jobs.c.due_at <= now
    if state is JobState.RUNNING:
        return and_(later, jobs.c.lease_until > now)
    return and_(later, or_(jobs.c.lease_until.is_(None), jobs.c.lease_until <= now))


def _cursor(job: Job) -> str:
    return f"{job.kind}.{cursors.write(job_rows.place(job), job.request_id)}"


def _behind(cursor: str) -> ColumnElement[bool]:
    kind, _, place = cursor.partition(".")
    due_at, request_id = cursors.read(place)
    if kind not in set(JobKind):
        raise BadRequest("This is not a place in a listing: pass on what an earlier page returned")
    columns = (jobs.c.due_at, jobs.c.request_id, jobs.c.kind)
    values = zip(columns, (due_at, request_id, JobKind(kind)), strict=True)
    return tuple_(*columns) > tuple_(
        *(bindparam(None, value, type_=column.type) for column, value in values)
    )


# --- counts -------------------------------------------------------------------------------------


async def count(connection: AsyncConnection, now: datetime) -> JobCounts:
    """Count all jobs, in one statement."""
    columns: list[Any] = []
    for kind in JobKind:
        mine = jobs.c.kind == kind
        columns += [
            _figure(f"{kind}_due", _number(mine, jobs.c.due_at <= now)),
            _figure(f"{kind}_later", _number(mine, _later(now))),
            _figure(f"{kind}_dead", _number(mine, jobs.c.due_at > job_rows.DEAD_BEYOND)),
            _figure(f"{kind}_running", _running(kind, now)),
            _figure(f"{kind}_oldest", select(func.min(jobs.c.due_at)).where(mine)),
        ]
    row = (await connection.execute(select(*columns))).one()._mapping  # noqa: SLF001 - documented
    by_state: dict[tuple[JobKind, JobState], int] = {}
    oldest_due: dict[JobKind, float] = {}
    for kind in JobKind:
        running, later = row[f"{kind}_running"], row[f"{kind}_later"]
        by_state[kind, JobState.DUE] = row[f"{kind}_due"]
        by_state[kind, JobState.WAITING] = later - running
        by_state[kind, JobState.RUNNING] = running
        by_state[kind, JobState.DEAD] = row[f"{kind}_dead"]
        oldest = row[f"{kind}_oldest"]
        late = 0.0 if oldest is None else (now - oldest).total_seconds()
        oldest_due[kind] = max(0.0, late)
    return JobCounts(by_state, oldest_due)


def _figure(name: str, query: Select[*tuple[Any, ...]]) -> ColumnElement[Any]:
    return query.scalar_subquery().label(name)


def _number(*conditions: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    return select(func.count()).select_from(jobs).where(*conditions)


def _later(now: datetime) -> ColumnElement[bool]:
    return and_(jobs.c.due_at > now, jobs.c.due_at <= job_rows.DEAD_BEYOND)


def _running(kind: JobKind, now: datetime) -> Select[*tuple[Any, ...]]:
    soonest = (
        select(jobs.c.lease_until)
        .where(jobs.c.kind == kind, _later(now))
        .order_by(jobs.c.due_at)
        .limit(_RUNNING_AMONG)
        .subquery()
    )
    return select(func.count()).select_from(soonest).where(soonest.c.lease_until > now)
