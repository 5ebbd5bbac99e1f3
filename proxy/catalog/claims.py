"""Which jobs are next, and taking them so that nobody else does.

Belongs here: the order of jobs, and the lease that a claim is. Must not know: what a job does, or
how its end is reported (`jobs.py`).

How a claim stays cheap among a million jobs: what is asked for and what is due longest are ranges
of an index. Expiry and age are walked in an index that also holds jobs that are not due; only so
many of its first entries are looked at (`REACH`). If none of those is due, the one that has been
due longest is next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Select, and_, case, exists, func, literal, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import job_rows
from proxy.catalog.tables import jobs
from proxy.records import Job, JobKind

REACH: Final = 2000
"""Entries of an index that are looked at for a job that is due."""

WORKER_DIED: Final = "The process that ran it stopped without a word"

_BEGINNING: Final = datetime(1, 1, 2, tzinfo=UTC)


async def any_due(connection: AsyncConnection, kind: JobKind, now: datetime) -> bool:
    """Say whether a claim would find something; dead jobs are never due."""
    due = exists().where(jobs.c.kind == kind, jobs.c.due_at <= now)
    return bool(await connection.scalar(select(due)))


async def claim(
    connection: AsyncConnection,
    kind: JobKind,
    lease_owner: str,
    limit: int,
    *,
    now: datetime,
    until: datetime,
    expiring_by: datetime,
) -> list[Job]:
    """Lease up to `limit` jobs that are due, the most urgent first.

    Asked ones by how long they are due; then those that expire by `expiring_by`, the first to
    expire first; then the newest clips. One that is due because its lease ran out has failed once
    more: its worker died.
    """
    picked: dict[str, Job] = {}
    for query in orders(kind, now, expiring_by):
        wanted = limit - len(picked)
        if wanted <= 0:
            break
        # Rows that this transaction has locked itself are not skipped.
        others = query.where(jobs.c.request_id.not_in(list(picked))) if picked else query
        locking = others.limit(wanted).with_for_update(skip_locked=True)
        for row in await connection.execute(locking):
            picked[row.request_id] = job_rows.job(row)
    if not picked:
        return []
    ran_out = jobs.c.lease_owner.is_not(None)
    leasing = update(jobs).where(jobs.c.kind == kind, jobs.c.request_id.in_(list(picked)))
    await connection.execute(
        leasing.values(
            lease_owner=lease_owner,
            lease_until=until,
            due_at=until,
            attempts=jobs.c.attempts + case((ran_out, 1), else_=0),
            last_error=case((ran_out, WORKER_DIED), else_=jobs.c.last_error),
        )
    )
    return [_leased(job, lease_owner, until) for job in picked.values()]


def _leased(job: Job, lease_owner: str, until: datetime) -> Job:
    """The row as the claim has left it."""
    died = job.lease_owner is not None
    return replace(
        job,
        lease_owner=lease_owner,
        lease_until=until,
        due_at=until,
        attempts=job.attempts + died,
        last_error=WORKER_DIED if died else job.last_error,
    )


def orders(
    kind: JobKind, now: datetime, expiring_by: datetime
) -> Iterator[Select[*tuple[Any, ...]]]:
    """Jobs that are due, in each of the orders in which they are picked, each by its own index.

    The databases use a partial index only for a condition that is written like the index's own.
    """
    alive = and_(jobs.c.kind == kind, jobs.c.dead_at.is_(None))
    due = job_rows.selection().where(alive, jobs.c.due_at <= now)
    yield due.where(text("asked")).order_by(jobs.c.due_at)
    yield due.where(
        jobs.c.expires_at.is_not(None),
        jobs.c.expires_at <= expiring_by,
        jobs.c.expires_at <= _reached(kind, "expires_at", expiring_by),
    ).order_by(jobs.c.expires_at)
    yield due.where(jobs.c.created_at >= _reached(kind, "created_at", _BEGINNING)).order_by(
        jobs.c.created_at.desc()
    )
    yield due.order_by(jobs.c.due_at)


def _reached(kind: JobKind, column: str, otherwise: datetime) -> Any:  # noqa: ANN401 - SQLAlchemy's
    """The value of the last entry that is looked at; `otherwise` if all of them are."""
    one = jobs.alias("one")
    value = one.c[column]
    order = value if column == "expires_at" else value.desc()
    entries = select(value).where(one.c.kind == kind, one.c.dead_at.is_(None), value.is_not(None))
    last = entries.order_by(order).offset(REACH).limit(1).scalar_subquery()
    return func.coalesce(last, literal(otherwise, value.type))
