"""Asking for clips: which jobs they need, and filing those, due now and before all others.

Belongs here: what is filed for which row, and what begins anew. Must not know: what becomes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from proxy.catalog.job_rows import NewJob
from proxy.clock import Clock
from proxy.jobs.tally import Tally, why_not_stored
from proxy.records import Generation, Job, JobKind, JobState, Status


class Filing(Protocol):
    """Where jobs are filed; `proxy.catalog.jobs.Jobs` keeps them."""

    async def file(self, new: Sequence[NewJob], *, revive: bool = False) -> int:
        """File jobs; `revive` those that are dead."""
        ...

    async def retry(self, *, request_ids: Sequence[str] | None = None) -> int:
        """Let jobs that wait begin anew, now."""
        ...


class Looking(Protocol):
    """Where they are looked at; `proxy.catalog.sweeping.Sweeping` does."""

    async def jobs_of(self, ids: Sequence[str]) -> dict[str, list[Job]]:
        """Return the jobs of some ids."""
        ...

    async def meanings(self, ids: Sequence[str]) -> dict[str, Generation]:
        """Return the rows of some ids."""
        ...


@dataclass(slots=True)
class Wishes:
    """Clips to be asked for: failures that their jobs have had, and what became of dead ones."""

    failures: dict[str, int] = field(default_factory=dict)
    buried: dict[str, str] = field(default_factory=dict)
    new: list[NewJob] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)


class Asking:
    """Asks for clips. `revive`: dead jobs begin anew. `can_resolve`: fal can be asked, too."""

    def __init__(
        self, jobs: Filing, looking: Looking, *, clock: Clock, revive: bool, can_resolve: bool
    ) -> None:
        """Take where jobs are filed and looked at."""
        self._jobs = jobs
        self._looking = looking
        self._clock = clock
        self._revive = revive
        self._can_resolve = can_resolve

    def sort_out(
        self, rows: Sequence[Generation], tally: Tally
    ) -> list[tuple[Generation, JobKind]]:
        """Settle what needs no job, or what no job could help; return which job the others need."""
        needed: list[tuple[Generation, JobKind]] = []
        for row in rows:
            if row.status is Status.STORED:
                tally.already_stored += 1
            elif row.status is Status.AVAILABLE:
                needed.append((row, JobKind.MIRROR))
            elif row.status is Status.PENDING and row.model is not None and self._can_resolve:
                needed.append((row, JobKind.RESOLVE))
            else:
                tally.fail(row.request_id, why_not_stored(row))
        return needed

    async def prepare(self, needed: Sequence[tuple[Generation, JobKind]]) -> Wishes:
        """Look at the jobs that there are: a dead one is an answer, unless it is to be revived.

        Raises CatalogUnavailable.
        """
        known = await self._looking.jobs_of([row.request_id for row, _ in needed])
        now, wishes = self._clock.now(), Wishes()
        for row, kind in needed:
            request_id = row.request_id
            job = next((job for job in known.get(request_id, ()) if job.kind is kind), None)
            state = None if job is None else job.state(now)
            if job is not None and state is JobState.DEAD and not self._revive:
                wishes.buried[request_id] = job.last_error or "dead: its job was given up"
                continue
            if state in {JobState.WAITING, JobState.DUE}:
                wishes.idle.append(request_id)
            wishes.failures[request_id] = 0 if job is None else job.attempts
            wishes.new.append(wish(kind, row))
        return wishes

    async def file(self, wishes: Wishes) -> None:
        """File them. Raises CatalogUnavailable, and can then be repeated.

        A job that has failed before begins anew: whoever asks does not want to wait for its turn.
        """
        await self._jobs.file(wishes.new, revive=self._revive)
        await self._jobs.retry(request_ids=wishes.idle)


def wish(kind: JobKind, of: Generation | Job) -> NewJob:
    """The job that somebody asks for."""
    return NewJob(request_id=of.request_id, kind=kind, asked=True, created_at=of.created_at)
