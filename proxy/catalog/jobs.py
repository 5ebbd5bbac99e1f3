"""The durable jobs: filed, claimed under a lease, reported on, listed, retried.

Belongs here: what may be asked and told of jobs, in transactions of their own. Must not know: what
a job does, how long to wait after a failure, or when one is given up.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, delete, exists, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import claims, job_list, job_rows
from proxy.catalog.engine import Catalog
from proxy.catalog.job_list import JobCounts
from proxy.catalog.job_rows import Key, NewJob
from proxy.catalog.pages import Page
from proxy.catalog.rows import IDS_AT_ONCE
from proxy.catalog.tables import jobs
from proxy.clock import Clock
from proxy.records import Job, JobKind, JobState


class Jobs:
    """The jobs table. Every method raises CatalogUnavailable when the database is away.

    Whoever reports on a job passes the one that `claim` returned: if its lease is somebody else's
    by now, or the job is gone, nothing changes and the answer is False.
    """

    def __init__(self, catalog: Catalog, *, clock: Clock | None = None) -> None:
        """Take the open catalog."""
        self._catalog = catalog
        self._clock = clock or Clock()

    # --- filing ---------------------------------------------------------------------------------

    async def file(self, new: Sequence[NewJob], *, revive: bool = False) -> int:
        """File jobs; return how many were not there, dead (with `revive`), or not asked for yet.

        Many are filed in several transactions: repeating the call after an outage is harmless.
        """
        filed = 0
        for start in range(0, len(new), IDS_AT_ONCE):
            some = new[start : start + IDS_AT_ONCE]

            async def work(connection: AsyncConnection, some: Sequence[NewJob] = some) -> int:
                return len(await job_rows.file(connection, some, self._clock.now(), revive=revive))

            filed += await self._catalog.write(work)
        return filed

    # --- working --------------------------------------------------------------------------------

    async def claim(
        self,
        kind: JobKind,
        owner: str,
        limit: int,
        lease: timedelta,
        *,
        expiry_margin: timedelta = timedelta(0),
    ) -> list[Job]:
        """Lease up to `limit` jobs that are due for `lease`, the most urgent first.

        Asked ones by how long they are due, then those whose source deletes them within
        `expiry_margin`, then the newest clips. Each claim has a `lease_owner` of its own, which
        begins with `owner/`: a worker's second claim fences off its first. A job whose last worker
        died has one more in `attempts`, so look at those before running it.
        """
        if limit < 1:
            return []
        now = self._clock.now()
        # An idle worker never takes SQLite's write lock.
        if not await self._catalog.read(lambda reading: claims.any_due(reading, kind, now)):
            return []
        lease_owner = f"{owner}/{secrets.token_hex(8)}"

        async def work(connection: AsyncConnection) -> list[Job]:
            now = self._clock.now()
            return await claims.claim(
                connection,
                kind,
                lease_owner,
                limit,
                now=now,
                until=now + lease,
                expiring_by=now + expiry_margin,
            )

        return await self._catalog.write(work)

    async def extend(self, held: Sequence[Job], lease: timedelta) -> set[Key]:
        """Prolong leases to `lease` from now; return the jobs that are still the caller's."""
        until = self._clock.now() + lease
        return await self._set_all(held, {"lease_until": until, "due_at": until})

    async def complete(self, job: Job) -> bool:
        """Remove a job that is done; storing its clip has mostly removed it already."""
        mine = {"id": job.request_id, "of": job.kind, "holder": job.lease_owner}
        if not await self._catalog.read(lambda reading: reading.scalar(_IS_HELD, mine)):
            return False  # nothing to write, so the database's one writer is not kept waiting

        async def work(connection: AsyncConnection) -> bool:
            removing = delete(jobs).where(_held(job)).returning(jobs.c.kind)
            return (await connection.execute(removing)).first() is not None

        return await self._catalog.write(work)

    async def postpone(
        self, job: Job, *, wait: timedelta, error: str, counted: bool = True
    ) -> bool:
        """Let a job that did not succeed be tried again after `wait`; say why.

        Not `counted`: that was not the job's fault, and brings it no closer to its end.
        """
        values = _ended(error, counted=counted) | {"due_at": self._clock.now() + wait}
        return bool(await self._set_all([job], values))

    async def bury(self, job: Job, error: str, *, counted: bool = True) -> bool:
        """Give a job up, and say why: it is listed as dead until it is retried."""
        now = self._clock.now()
        death = {"dead_at": now, "due_at": now + job_rows.AFTERLIFE}
        return bool(await self._set_all([job], _ended(error, counted=counted) | death))

    async def release(self, held: Sequence[Job]) -> set[Key]:
        """Hand back jobs that will not be run after all: due now, and not counted."""
        values = {"lease_owner": None, "lease_until": None, "due_at": self._clock.now()}
        return await self._set_all(held, values)

    async def _set_all(self, held: Sequence[Job], values: dict[str, Any]) -> set[Key]:
        """Change the jobs whose leases are still those; return them."""
        if not held:
            return set()
        # One after the other in the order of their keys, which is the order of locks.
        ordered = sorted(held, key=lambda job: (job.request_id, job.kind))

        async def work(connection: AsyncConnection) -> set[Key]:
            found: set[Key] = set()
            for job in ordered:
                setting = update(jobs).where(_held(job)).values(values).returning(jobs.c.kind)
                if (await connection.execute(setting)).first() is not None:
                    found.add((job.request_id, job.kind))
            return found

        return await self._catalog.write(work)

    # --- looking --------------------------------------------------------------------------------

    async def get(self, request_id: str, kind: JobKind) -> Job | None:
        """Return one job, or None: there is none, or it is done."""
        query = job_rows.selection().where(jobs.c.request_id == request_id, jobs.c.kind == kind)

        async def work(connection: AsyncConnection) -> Job | None:
            row = (await connection.execute(query)).first()
            return None if row is None else job_rows.job(row)

        return await self._catalog.read(work)

    async def list(
        self,
        *,
        state: JobState | None = None,
        kind: JobKind | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page[Job]:
        """Return jobs in the order in which they are due; dead ones last, by their deaths.

        `after` is a former page's `next`; `limit` is cut to 500. Raises BadRequest for an `after`
        that never was a `next`.
        """
        now = self._clock.now()
        kinds = tuple(JobKind) if kind is None else (kind,)
        return await self._catalog.read(
            lambda connection: job_list.page(
                connection, now, state=state, kinds=kinds, after=after, limit=limit
            )
        )

    async def count(self) -> JobCounts:
        """Return how many jobs of each kind are in each state, and how late the latest is."""
        now = self._clock.now()
        return await self._catalog.read(lambda connection: job_list.count(connection, now))

    async def alive(self, request_ids: Iterable[str]) -> set[str]:
        """Return those of the ids that have a job which is neither done nor dead."""
        found: set[str] = set()
        for some in job_rows.chunks(sorted(set(request_ids))):
            query = select(jobs.c.request_id).where(
                jobs.c.request_id.in_(some), jobs.c.dead_at.is_(None)
            )

            async def work(connection: AsyncConnection, query: Any = query) -> set[str]:  # noqa: ANN401
                return set((await connection.scalars(query)).all())

            found |= await self._catalog.read(work)
        return found

    # --- retrying -------------------------------------------------------------------------------

    async def retry(
        self, *, request_ids: Sequence[str] | None = None, kind: JobKind | None = None
    ) -> int:
        """Let jobs begin anew, due now, without failures; return how many.

        Of the given ids every job that is dead or waits; with None, all that are dead. Running
        ones are left alone. Many are retried in several transactions.
        """
        retried = 0
        if request_ids is not None:
            for some in job_rows.chunks(sorted(set(request_ids))):
                retried += await self._retry(jobs.c.request_id.in_(some), kind)
            return retried
        for each in JobKind if kind is None else (kind,):
            while found := await self._retry(jobs.c.due_at > job_rows.DEAD_BEYOND, each):
                retried += found
        return retried

    async def _retry(self, which: ColumnElement[bool], kind: JobKind | None) -> int:
        now = self._clock.now()
        idle = or_(jobs.c.lease_until.is_(None), jobs.c.lease_until <= now)
        which = and_(which, idle) if kind is None else and_(which, idle, jobs.c.kind == kind)

        async def work(connection: AsyncConnection) -> int:
            return len(await job_rows.begin_anew(connection, which, now))

        return await self._catalog.write(work)


_IS_HELD: Final = select(
    exists().where(
        jobs.c.request_id == bindparam("id"),
        jobs.c.kind == bindparam("of"),
        jobs.c.lease_owner == bindparam("holder"),
    )
)


def _held(job: Job) -> ColumnElement[bool]:
    """The job, as long as it is held by that claim."""
    return and_(
        jobs.c.request_id == job.request_id,
        jobs.c.kind == job.kind,
        jobs.c.lease_owner == job.lease_owner,
    )


def _ended(error: str, *, counted: bool) -> dict[str, Any]:
    """What is set in a job whose run did not succeed."""
    return {
        "lease_owner": None,
        "lease_until": None,
        "attempts": jobs.c.attempts + int(counted),
        "last_error": job_rows.excerpt(error),
    }
