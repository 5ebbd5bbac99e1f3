"""`firstview jobs list`: the jobs that are not done.

Belongs here: the table and its JSON. Must not know: how jobs are kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from proxy.catalog.engine import Catalog
from proxy.catalog.job_list import MAX_PAGE
from proxy.catalog.jobs import Jobs
from proxy.cli.lookups import print_json_list, with_catalog
from proxy.cli.tables import Column, Listing, terminal_width
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
        pages = _pages(Jobs(catalog, clock=clock), state, kind, most)
        if as_json:
            now = clock.now()
            await print_json_list([as_dict(job, now) for job in page] async for page in pages)
            return
        listing, shown = Listing(_COLUMNS, width=terminal_width()), 0
        async for page in pages:
            shown += len(page)
            for line in listing.lines([_row(job, clock.now()) for job in page]):
                print(line)
        if not shown:
            print("no jobs" if state is None and kind is None else "no such jobs")
        elif shown == most:
            print(f"… there may be more: these are the first {most}; --all shows all")

    with_catalog(settings, work)
    return 0


async def _pages(
    jobs: Jobs, state: JobState | None, kind: JobKind | None, most: int | None
) -> AsyncIterator[tuple[Job, ...]]:
    after: str | None = None
    while most is None or most > 0:
        limit = MAX_PAGE if most is None else min(most, MAX_PAGE)
        page = await jobs.list(state=state, kind=kind, after=after, limit=limit)
        if page.items:
            yield page.items
        if page.next is None:
            return
        after = page.next
        most = None if most is None else most - len(page.items)


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
