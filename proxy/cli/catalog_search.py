"""`firstview catalog search`: generations by what is remembered of them.

Belongs here: the table, its JSON and CSV. Must not know: how generations are found.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Final

from proxy.catalog.engine import Catalog
from proxy.catalog.search import Search
from proxy.cli.lookups import pages_of, print_json_list, print_table, with_catalog
from proxy.cli.tables import Column
from proxy.cli.words import moment, read_moment, size
from proxy.clock import Clock
from proxy.errors import SettingsError
from proxy.records import Generation, Status
from proxy.settings import Settings

_COLUMNS: Final = (
    Column(heading="request id"),
    Column(heading="status"),
    Column(heading="model", cut=True),
    Column(heading="seconds", right=True, optional=True),
    Column(heading="size", right=True, optional=True),
    Column(heading="created (UTC)", optional=True),
    Column(heading="address", optional=True),
)
_FIELDS: Final = tuple(field.name for field in fields(Generation))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is looked for, as it was typed; `most` None: all that there are."""

    status: Status | None
    model: str | None
    prefix: str
    prompt: str | None
    since: str | None
    until: str | None
    most: int | None


def run(settings: Settings, question: Question, *, as_json: bool, as_csv: bool) -> int:
    """Print what is found, newest first; returns the exit code: 0, also if that is nothing.

    Raises SettingsError or BadRequest for a question that makes no sense, CatalogError.
    """
    if as_json and as_csv:
        raise SettingsError("firstview catalog search: give either --json or --csv")
    now = Clock().now()
    since = read_moment("--since", question.since, now)
    until = read_moment("--until", question.until, now)

    async def work(catalog: Catalog) -> None:
        search = Search(catalog)
        pages = pages_of(
            lambda after, limit: search.find(
                status=question.status,
                model=question.model,
                prefix=question.prefix,
                prompt=question.prompt,
                since=since,
                until=until,
                after=after,
                limit=limit,
            ),
            question.most,
        )
        if as_json:
            await print_json_list(map(asdict, page) async for page in pages)
        elif as_csv:
            await _print_csv(pages)
        else:
            await print_table(pages, _COLUMNS, _cells, most=question.most, nothing="nothing found")

    with_catalog(settings, work)
    return 0


def _cells(row: Generation) -> tuple[str, ...]:
    return (
        row.request_id,
        row.status,
        row.model or "",
        "" if row.duration is None else f"{row.duration:.1f}",
        size(row.content_length),
        moment(row.created_at),
        row.cdn_url or "",
    )


async def _print_csv(pages: AsyncIterator[tuple[Generation, ...]]) -> None:
    """All that is known, with the headings that `firstview import` reads."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_FIELDS)
    async for page in pages:
        for row in page:
            values = [getattr(row, name) for name in _FIELDS]
            writer.writerow(
                value.isoformat() if isinstance(value, datetime) else value for value in values
            )
