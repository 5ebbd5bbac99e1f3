"""Which jobs are next, and taking them so that nobody else does.

Belongs here: the order of jobs, and the lease that a claim is. Must not know: what a job does, or
how its end is reported (`jobs.py`).

How a claim stays cheap among a million jobs: what is asked for and what is due longest are ranges
of an index. Expiry and age are walked in an index that also holds jobs that are not due; only so
many of its first entries are looked at (`REACH`). If none of those is due, the one that has been
due longest is next.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    select,
    text,
    update,
)
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
    return bool(await connection.scalar(_ANY_DUE, {"kind": kind, "now": now}))


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
    given = {"now": now, "expiring_by": expiring_by, "reach": REACH}
    for order in range(len(orders(kind))):
        wanted = limit - len(picked)
        if wanted <= 0:
            break
        # Rows that this transaction has locked itself are not skipped.
        others = {"picked": list(picked)} if picked else {}
        picking = _picking(kind, order, again=bool(picked))
        for row in await connection.execute(picking, {**given, **others, "wanted": wanted}):
            picked[row.request_id] = job_rows.job(row)
    if not picked:
        return []
    holding = {"of": kind, "picked": list(picked), "holder": lease_owner, "until": until}
    await connection.execute(_LEASING, holding)
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


# Built once, as are the others: to build them takes longer than to run them.
_ANY_DUE: Final = select(
    exists().where(jobs.c.kind == bindparam("kind"), jobs.c.due_at <= bindparam("now"))
)
_RAN_OUT: Final = jobs.c.lease_owner.is_not(None)
_LEASING: Final = (
    update(jobs)
    .where(
        jobs.c.kind == bindparam("of"),
        jobs.c.request_id.in_(bindparam("picked", expanding=True)),
    )
    .values(
        lease_owner=bindparam("holder"),
        lease_until=bindparam("until"),
        due_at=bindparam("until"),
        attempts=jobs.c.attempts + case((_RAN_OUT, 1), else_=0),
        last_error=case((_RAN_OUT, WORKER_DIED), else_=jobs.c.last_error),
    )
)


@cache
def _picking(kind: JobKind, order: int, *, again: bool) -> Select[*tuple[Any, ...]]:
    """The first `wanted` jobs of an order that others have not locked, and not `picked` already."""
    query = orders(kind)[order]
    if again:
        query = query.where(jobs.c.request_id.not_in(bindparam("picked", expanding=True)))
    return query.limit(bindparam("wanted", type_=Integer)).with_for_update(skip_locked=True)


@cache
def orders(kind: JobKind) -> tuple[Select[*tuple[Any, ...]], ...]:
    """Jobs that are due `now`, in each of the orders in which they are picked, each by its index.

    One of them takes what expires until `expiring_by`; that and `now` are parameters. The
    databases use a partial index only for a condition that is written like the index's own.
    """
    now = bindparam("now", type_=jobs.c.due_at.type)
    expiring_by = bindparam("expiring_by", type_=jobs.c.expires_at.type)
    alive = and_(jobs.c.kind == kind, jobs.c.dead_at.is_(None))
    due = job_rows.selection().where(alive, jobs.c.due_at <= now)
    beginning = literal(_BEGINNING, jobs.c.created_at.type)
    return (
        due.where(text("asked")).order_by(jobs.c.due_at),
        due.where(
            jobs.c.expires_at.is_not(None),
            jobs.c.expires_at <= expiring_by,
            jobs.c.expires_at <= _reached(kind, "expires_at", expiring_by),
        ).order_by(jobs.c.expires_at),
        due.where(jobs.c.created_at >= _reached(kind, "created_at", beginning)).order_by(
            jobs.c.created_at.desc()
        ),
        due.order_by(jobs.c.due_at),
    )


def _reached(kind: JobKind, column: str, otherwise: ColumnElement[Any]) -> ColumnElement[Any]:
    """The value of the last entry that is looked at; `otherwise` if all of them are."""
    one = jobs.alias("one")
    value = one.c[column]
    order = value if column == "expires_at" else value.desc()
    entries = select(value).where(one.c.kind == kind, one.c.dead_at.is_(None), value.is_not(None))
    last = (
        entries.order_by(order)
        .offset(bindparam("reach", REACH, Integer))
        .limit(1)
        .scalar_subquery()
    )
    return func.coalesce(last, otherwise)
