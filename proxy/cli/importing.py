"""What all imports share: registering batches, counting, refused rows, the report.

Belongs here: from checked rows to a report. Must not know: where rows come from.
"""

from __future__ import annotations

import asyncio
import csv
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TextIO

import orjson
import uvloop

from proxy.app.places import of_new_rows
from proxy.catalog.changes import Outcome
from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.imports import Refused
from proxy.catalog.said import Check
from proxy.cli.exit_codes import PARTLY, WRONG
from proxy.errors import CatalogError, SettingsError
from proxy.records import Registration
from proxy.settings import Settings
from proxy.storage import keys
from proxy.telemetry.log import configure
from proxy.upstream.allowlist import Policy, check_url

_SHOWN: Final = 10

Batches = AsyncIterator[Iterable[Registration | Refused]]
"""Checked rows; each batch is registered in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every import is asked to do besides importing."""

    as_json: bool
    dry_run: bool
    refused_file: Path | None


class RefusedFile:
    """All refused rows, as a spreadsheet can show them."""

    def __init__(self, file: TextIO) -> None:
        self._rows = csv.writer(file)
        self._rows.writerow(("row", "request_id", "reason"))

    def write(self, row: Refused) -> None:
        """Write one row."""
        self._rows.writerow((row.row, row.request_id or "", "; ".join(row.reasons)))


@dataclass(slots=True)
class Report:
    """What became of the rows; `usable` counts those that were not refused."""

    usable: int = 0
    refused: int = 0
    first_refused: list[Refused] = field(default_factory=list)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    refused_file: RefusedFile | None = None

    def take(self, batch: Iterable[Registration | Refused]) -> list[Registration]:
        """Count a batch's rows, keep what is to be shown of the refused, return the others."""
        usable = []
        for row in batch:
            if isinstance(row, Registration):
                usable.append(row)
            else:
                self._refuse(row)
        self.usable += len(usable)
        return usable

    def _refuse(self, row: Refused) -> None:
        self.refused += 1
        if len(self.first_refused) < _SHOWN:
            self.first_refused.append(row)
        if self.refused_file is not None:
            self.refused_file.write(row)

    @property
    def exit_code(self) -> int:
        """0: all rows were usable; 1: some; 2: none."""
        if not self.usable:
            return WRONG
        return PARTLY if self.refused else 0


def run(
    settings: Settings,
    options: Options,
    batches: Batches,
    *,
    moved: Callable[[Report], None],
    ignored: Callable[[], Iterable[str]],
) -> int:
    """Import all batches and print the report; returns the exit code.

    `moved` is told after each batch; `ignored` names, at the end, columns that mean nothing.
    Raises what the batches raise; CatalogError after printing what was done until then.
    """
    configure(settings)
    report, started = Report(), time.monotonic()
    failure: CatalogError | None = None
    with ExitStack() as stack:
        if options.refused_file is not None:
            report.refused_file = _open_refused(stack, options.refused_file)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_import(settings, batches, report, moved, dry_run=options.dry_run))
        except CatalogError as error:
            failure = error
    seconds = time.monotonic() - started
    show = _print_json if options.as_json else _print
    show(report, list(ignored()), seconds, dry_run=options.dry_run)
    if failure is not None:
        done = f"{report.outcomes.total()} rows are registered; run the same again for the rest"
        raise type(failure)(f"{failure.detail} {done}") from failure
    return report.exit_code


async def _import(
    settings: Settings,
    batches: Batches,
    report: Report,
    moved: Callable[[Report], None],
    *,
    dry_run: bool,
) -> None:
    if dry_run:
        async for batch in batches:
            report.take(batch)
            moved(report)
        return
    catalog = await open_catalog(
        keys.database_url(settings.database_url.get_secret_value(), settings.data_dir)
    )
    generations = Generations(catalog, **of_new_rows(settings))
    try:
        async for batch in batches:
            report.outcomes.update(await generations.register(report.take(batch)))
            moved(report)
    finally:
        await catalog.close()


def checking(settings: Settings) -> Check:
    """What refuses URLs that would never be fetched."""
    policy = Policy.of(settings.upstream_hosts, insecure=settings.upstream_allow_insecure)
    return lambda url: check_url(url, policy)


def _open_refused(stack: ExitStack, file: Path) -> RefusedFile:
    try:
        return RefusedFile(
            stack.enter_context(file.open("w", encoding="utf-8", newline="", errors="replace"))
        )
    except OSError as error:
        raise SettingsError(f"firstview: cannot write {file}: {error.strerror}") from error


# --- the report ---------------------------------------------------------------------------------


def _print(report: Report, ignored: list[str], seconds: float, *, dry_run: bool) -> None:
    if dry_run:
        print(f"{report.usable} rows could be registered, {report.refused} would be refused")
    else:
        counts = ", ".join(f"{report.outcomes[outcome]} {outcome}" for outcome in Outcome)
        rate = report.outcomes.total() / max(seconds, 1e-9)
        print(f"{counts}, {report.refused} refused ({seconds:.1f} s, {rate:,.0f} rows/s)")
    if ignored:
        print(f"columns that mean nothing here: {', '.join(ignored)}")
    for row in report.first_refused:
        print(row, file=sys.stderr)
    if report.refused > len(report.first_refused):
        more = report.refused - len(report.first_refused)
        print(f"… and {more} more; --refused FILE writes them all", file=sys.stderr)


def _print_json(report: Report, ignored: list[str], seconds: float, *, dry_run: bool) -> None:
    counts = {outcome.value: report.outcomes[outcome] for outcome in Outcome}
    first = [
        {"row": row.row, "request_id": row.request_id, "reasons": row.reasons}
        for row in report.first_refused
    ]
    body = {
        "dry_run": dry_run,
        "usable": report.usable,
        **counts,
        "refused": report.refused,
        "first_refused": first,
        "ignored_columns": ignored,
        "seconds": round(seconds, 3),
    }
    print(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())
