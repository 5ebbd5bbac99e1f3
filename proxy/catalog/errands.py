"""What each event of a generation does to its jobs, in the same transaction as the row itself.

Belongs here: every rule of which job exists when. Must not know: what the event does to the row
(`changes.py`), or how a job is run.

What the rules are for: a clip that somebody wants and that is not stored has a mirror job; one that
is stored or lost has none; a resolve job exists only while the row is pending; and nothing that was
begun for a former URL can report on the present one.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from proxy.catalog import job_rows
from proxy.catalog.job_rows import Key, NewJob
from proxy.records import Generation, JobKind, Status


class Errands:
    """What one transaction has to do to jobs, gathered while its rows change, then run at once.

    `expires_after` is the age at which sources delete their clips, None: they do not.
    """

    def __init__(self, expires_after: timedelta | None = None) -> None:
        """Begin with nothing to do."""
        self._expires_after = expires_after
        self._removed: set[Key] = set()
        self._restarted: set[Key] = set()
        self._filed: dict[Key, NewJob] = {}
        self._instead: dict[Key, NewJob] = {}

    # --- events of a row that was locked as `before` and is `after` now --------------------------

    def registered(
        self, before: Generation | None, after: Generation, *, repointed: bool = False
    ) -> None:
        """A registration was taken in; `repointed`: one of the clip's URLs gave way to another."""
        if before is None:
            return
        if repointed:
            self._restarted.add((after.request_id, JobKind.MIRROR))
            if before.status is Status.STORED:
                self.mirror(after)
        resolve = (after.request_id, JobKind.RESOLVE)
        if before.fal_url is None and after.fal_url is not None:
            if after.status is Status.AVAILABLE:
                self._instead[resolve] = self._mirror(after, asked=False)
                # Whatever a mirror job found out without a URL says nothing any more.
                self._restarted.add((after.request_id, JobKind.MIRROR))
            self._removed.add(resolve)
        elif after.status is Status.PENDING and before.model is None and after.model is not None:
            # Without its model fal could not be asked.
            self._restarted.add(resolve)

    def stored(self, _before: Generation | None, after: Generation) -> None:
        """The bucket has the clip: nothing is left to be done."""
        self._removed |= {(after.request_id, kind) for kind in JobKind}

    def missing(self, before: Generation | None, after: Generation) -> None:
        """The bucket lacks a clip that was called stored."""
        if before is not None and before.status is Status.STORED:
            self.mirror(after)

    def refused(self, _before: Generation | None, after: Generation) -> None:
        """The source refused; once it is lost, asking it again is of no use."""
        if after.status is Status.LOST:
            self._removed.add((after.request_id, JobKind.MIRROR))

    def failed(self, _before: Generation | None, after: Generation) -> None:
        """There will be no clip, so there is nothing to ask fal for."""
        self._removed.add((after.request_id, JobKind.RESOLVE))

    # --- what a clip needs -----------------------------------------------------------------------

    def mirror(self, row: Generation, *, asked: bool = False) -> None:
        """See to it that a clip which can be fetched and is not stored has its mirror job."""
        if row.status is Status.AVAILABLE:
            self._filed[row.request_id, JobKind.MIRROR] = self._mirror(row, asked=asked)

    def resolve(self, row: Generation) -> None:
        """See to it that fal is asked for the result of a pending generation."""
        if row.status is Status.PENDING:
            self._filed[row.request_id, JobKind.RESOLVE] = NewJob(
                request_id=row.request_id, kind=JobKind.RESOLVE, created_at=row.created_at
            )

    def _mirror(self, row: Generation, *, asked: bool) -> NewJob:
        expires_at = None
        if self._expires_after is not None:
            expires_at = (row.completed_at or row.created_at) + self._expires_after
        return NewJob(
            request_id=row.request_id,
            kind=JobKind.MIRROR,
            asked=asked,
            expires_at=expires_at,
            created_at=row.created_at,
        )

    # --- doing it --------------------------------------------------------------------------------

    async def run(self, connection: AsyncConnection, now: datetime) -> set[Key]:
        """Do it all, after the rows were written; return the jobs that were newly filed."""
        touched = (self._removed, self._restarted, self._filed.keys())
        if sum(map(bool, touched)) > 1:  # each of these keeps to the order of locks by itself
            await job_rows.lock(connection, {name for keys in touched for name, _ in keys})
        for key in await self._remove(connection) & self._instead.keys():
            job = self._instead[key]
            self._filed.setdefault((job.request_id, job.kind), job)
        for kind in JobKind:
            await job_rows.restart(connection, _ids(self._restarted, kind), kind, now)
        return await job_rows.file(connection, self._filed.values(), now)

    async def _remove(self, connection: AsyncConnection) -> set[Key]:
        """Remove what is to go, with one statement where all of an id's jobs are."""
        of_kind = {kind: _ids(self._removed, kind) for kind in JobKind}
        entirely = set.intersection(*of_kind.values())
        removed = await job_rows.remove(connection, entirely)
        for kind, ids in of_kind.items():
            removed |= await job_rows.remove(connection, ids - entirely, kind)
        return removed


def _ids(keys: set[Key], kind: JobKind) -> set[str]:
    return {request_id for request_id, of in keys if of is kind}
