"""`firstview jobs list`: the jobs that are not done.

Belongs here: the table and its JSON. Must not know: how jobs are kept.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from proxy.catalog.engine import Catalog
from proxy.catalog.jobs import Jobs
from proxy.cli.lookups import pages_of, print_json_list, print_table, with_catalog
from proxy.cli.tables import Column
from proxy.cli.words import span
from proxy.clock import Clock
from proxy.records import Job, JobKind, JobState
from proxy.settings import Settings

_COLUMNS: Final = (
    Column(heading="request id"),
    Column(heading="kind"),
    Column(heading="state"),
    Column(heading="failures", right=True),
    Column(heading="due", right=True),
    Column(heading="last error", cut=True),
)


def run(
    settings: Settings,
    state: JobState | None,
    kind: JobKind | None,
    *,
    most: int | None,
    as_json: bool,
) -> int:
    """Print at most so many jobs (None: all); returns the exit code. Raises CatalogError."""
    clock = Clock()

    async def work(catalog: Catalog) -> None:
        jobs = Jobs(catalog, clock=clock)
        pages = pages_of(
            lambda after, limit: jobs.list(state=state, kind=kind, after=after, limit=limit), most
        )
        if as_json:
            now = clock.now()
            await print_json_list([as_dict(job, now) for job in page] async for page in pages)
            return
        nothing = "no jobs" if state is None and kind is None else "no such jobs"
        await print_table(
            pages, _COLUMNS, lambda job: _row(job, clock.now()), most=most, nothing=nothing
        )

    with_catalog(settings, work)
    return 0


def as_dict(job: Job, now: datetime) -> dict[str, Any]:
    """A job as JSON has it: its record, and where it stands."""
    return {"state": job.state(now), **asdict(job)}


def due(job: Job, now: datetime) -> str:
    """When a job may be run (again), for people; of a dead one, since when it is dead."""
    state = job.state(now)
    if state is JobState.DEAD:
        return f"{span((now - job.due_at).total_seconds())} ago"
    if state is JobState.WAITING:
        return f"in {span((job.due_at - now).total_seconds())}"
    return "now" if state is JobState.DUE else ""


def _row(job: Job, now: datetime) -> tuple[str, ...]:
    state = job.state(now)
    shown = f"{state}, asked" if job.asked and state is not JobState.DEAD else str(state)
    error = job.last_error or ""
    return (job.request_id, job.kind, shown, str(job.attempts), due(job, now), error)
