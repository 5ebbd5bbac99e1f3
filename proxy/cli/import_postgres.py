"""`firstview import --from-postgres URL`: put an application's own table into the catalog.

Belongs here: the progress bar. Must not know: how the table is read, or what becomes of a row
(`importing.py`).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from proxy.catalog import foreign
from proxy.catalog.imports import Refused
from proxy.cli import importing
from proxy.cli.importing import Options, Report
from proxy.records import Registration
from proxy.settings import Settings


def run(settings: Settings, url: str, table: str, options: Options) -> int:
    """Import a table and print the report; returns the exit code.

    Raises SettingsError for an address or a table that cannot be used, CatalogError, after printing
    what was done until then, when either database fails.
    """
    ignored: list[str] = []

    async def batches() -> AsyncIterator[list[Registration | Refused]]:
        async with foreign.opened(url, table, importing.checking(settings)) as rows:
            ignored.extend(rows.ignored)
            async for batch in rows.batches():
                yield batch

    with ExitStack() as stack:
        # How many rows there are is not asked: counting them takes as long as reading them.
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rows]}"))
        progress = stack.enter_context(
            Progress(
                *columns,
                TimeElapsedColumn(),
                console=Console(stderr=True),
                disable=not sys.stderr.isatty(),
            )
        )
        task = progress.add_task(table, total=None, rows="")

        def moved(report: Report) -> None:
            progress.update(task, rows=f"{report.usable + report.refused:,} rows")

        return importing.run(settings, options, batches(), moved=moved, ignored=lambda: ignored)
