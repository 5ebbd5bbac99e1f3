"""`firstview catalog show`: everything that is known of one generation.

Belongs here: the page and its JSON. Must not know: how generations and jobs are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime

from proxy.app.places import of_new_rows
from proxy.catalog.engine import Catalog
from proxy.catalog.generations import Generations
from proxy.catalog.jobs import Jobs
from proxy.cli.exit_codes import PARTLY
from proxy.cli.jobs_list import as_dict, due
from proxy.cli.lookups import print_json, with_catalog
from proxy.cli.words import printable, size
from proxy.clock import Clock
from proxy.records import Generation, Job, JobKind
from proxy.settings import Settings


def run(settings: Settings, request_id: str, *, as_json: bool) -> int:
    """Print one generation and its jobs; returns the exit code, 1: it is unknown.

    Raises CatalogError.
    """

    async def work(catalog: Catalog) -> tuple[Generation | None, list[Job]]:
        jobs = Jobs(catalog)
        found = [await jobs.get(request_id, kind) for kind in JobKind]
        row = await Generations(catalog, **of_new_rows(settings)).get(request_id)
        return row, [job for job in found if job is not None]

    row, jobs = with_catalog(settings, work)
    now = Clock().now()
    if row is None:
        known = f"firstview: the catalog knows no generation {printable(request_id)!r}"
        print(known, file=sys.stderr)
        return PARTLY
    if as_json:
        print_json({**asdict(row), "jobs": [as_dict(job, now) for job in jobs]})
        return 0
    for label, value in _lines(row, jobs, now):
        print(f"{label:<16}  {printable(value)}".rstrip())
    return 0


def _lines(row: Generation, jobs: list[Job], now: datetime) -> Iterator[tuple[str, str]]:
    """What is known; what is not is left out, but for what everybody looks for."""
    yield "request id", row.request_id
    yield "status", row.status
    yield "address", row.cdn_url or ""
    yield "source", row.fal_url or "not known"
    values = {
        "model": row.model,
        "prompt": row.prompt,
        "prompt hash": row.prompt_hash,
        "duration": None if row.duration is None else f"{row.duration:g} s",
        "dimensions": None if row.width is None else f"{row.width} x {row.height}",
        "size": _size(row.content_length),
        "type": row.content_type,
        "etag": row.etag,
        "sha256": row.sha256,
        "gated": None if row.gated is None else "yes" if row.gated else "no",
        "error": row.error,
        "refusals": _refusals(row),
        "created": _moment(row.created_at),
        "completed": _moment(row.completed_at),
        "last modified": _moment(row.last_modified),
        "mirrored": _moment(row.mirrored_at),
        "last viewed": _moment(row.last_viewed_at),
    }
    yield from ((label, value) for label, value in values.items() if value)
    for job in jobs:
        yield f"{job.kind} job", ", ".join(_of_job(job, now))
        if job.last_error:
            yield "  last error", job.last_error


def _of_job(job: Job, now: datetime) -> Iterator[str]:
    yield f"{job.state(now)} {due(job, now)}".rstrip()
    if job.asked:
        yield "asked for"
    yield f"{job.attempts} failures"


def _size(count: int | None) -> str | None:
    return None if count is None else f"{size(count)} ({count:,} bytes)"


def _refusals(row: Generation) -> str | None:
    if not row.refusals:
        return None
    return f"{row.refusals} by the source, the first at {_moment(row.first_refused_at)}"


def _moment(value: datetime | None) -> str | None:
    return None if value is None else f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
