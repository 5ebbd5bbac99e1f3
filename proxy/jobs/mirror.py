"""Mirror jobs: a clip that is not in the bucket yet is brought there.

Belongs here: what the corridor's answers mean for the job. Must not know: how a clip is brought
in, where it is looked for, or when a job is tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from proxy.catalog.job_rows import NewJob
from proxy.errors import ClipNotReady
from proxy.jobs.verdict import DONE, Outcome, Verdict
from proxy.records import Generation, Job, JobKind, Status


class Corridor(Protocol):
    """What brings clips in; `proxy.delivery.mirror.Mirrors` does."""

    async def mirror(self, request_id: str) -> None:
        """Return when the clip is stored. Raises why it is not; no call stops another's fill."""
        ...


class Rows(Protocol):
    """Where generations are looked up; `proxy.catalog.generations.Generations` keeps them."""

    async def get(self, request_id: str) -> Generation | None:
        """Return the row of an id."""
        ...


class Filing(Protocol):
    """Where jobs are filed; `proxy.catalog.jobs.Jobs` keeps them."""

    async def file(self, new: Sequence[NewJob], *, revive: bool = False) -> object:
        """File jobs; those that are there already stay as they are."""
        ...


class MirrorHandler:
    """Does mirror jobs. Harmless when repeated: a clip that is stored stays as it is."""

    def __init__(self, corridor: Corridor, rows: Rows, jobs: Filing) -> None:
        """Take the corridor, and the catalog for clips that have no address yet."""
        self._corridor = corridor
        self._rows = rows
        self._jobs = jobs

    async def __call__(self, job: Job) -> Verdict:
        """Mirror one clip. What the corridor raises is the verdict, but for a missing address."""
        try:
            await self._corridor.mirror(job.request_id)
        except ClipNotReady:
            return await self._without_address(job)
        return DONE

    async def _without_address(self, job: Job) -> Verdict:
        """Let fal be asked where the clip is; whoever finds out files the mirror job anew."""
        row = await self._rows.get(job.request_id)
        if row is not None and row.status is not Status.PENDING:
            error = "the clip changed while it was looked for"
            return Verdict(outcome=Outcome.POSTPONED, error=error, counted=False)
        if row is None or row.model is None:
            error = "the clip has no address yet, and no model to ask fal by"
            return Verdict(outcome=Outcome.POINTLESS, error=error)
        asking = NewJob(
            request_id=row.request_id,
            kind=JobKind.RESOLVE,
            asked=job.asked,
            created_at=row.created_at,
        )
        await self._jobs.file([asking])
        error = "the clip has no address yet; fal is asked for it"
        return Verdict(outcome=Outcome.POINTLESS, error=error)
