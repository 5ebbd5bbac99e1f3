"""`firstview import`: put what a file lists into the catalog.

Belongs here: batches, the progress bar, the report. Must not know: how a row is read, or what a
registration does.
"""

from __future__ import annotations

import asyncio
import csv
import io
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from proxy.catalog.changes import Outcome
from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.imports import Reader, Refused, kind_of
from proxy.errors import CatalogError, SettingsError
from proxy.records import Registration
from proxy.settings import Settings
from proxy.storage import keys
from proxy.upstream.allowlist import Policy, check_url

BATCH: Final = 1000
"""Rows registered in one transaction."""

_SHOWN: Final = 10


@dataclass(slots=True)
class Report:
    """What became of the rows; `usable` counts those that were not refused."""

    usable: int = 0
    refused: int = 0
    first_refused: list[Refused] = field(default_factory=list)
    outcomes: Counter[Outcome] = field(default_factory=Counter)

    def refuse(self, row: Refused) -> None:
        """Count a refused row, and keep it if it is one of the first."""
        self.refused += 1
        if len(self.first_refused) < _SHOWN:
            self.first_refused.append(row)

    @property
    def exit_code(self) -> int:
        """0: all rows were usable; 1: some; 2: none."""
        if not self.usable:
            return 2
        return 1 if self.refused else 0


def run(
    settings: Settings, file: Path, *, as_json: bool, dry_run: bool, refused_file: Path | None
) -> int:
    """Import a file and print the report; returns the exit code.

    Raises SettingsError if a file cannot be opened, BadRequest if it cannot be read as a whole,
    CatalogUnavailable after printing what was done until then.
    """
    report, started = Report(), time.monotonic()
    failure: CatalogError | None = None
    with ExitStack() as stack:
        stream = _open(stack, file)
        refused = None if refused_file is None else _open_refused(stack, refused_file)
        bar = _bar(stack, stream, file.name)
        reader = Reader(stream, kind_of(file.name), _check(settings))
        batches = _batches(reader, report, refused)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_register(settings, batches, report, bar, dry_run=dry_run))
        except CatalogError as error:
            failure = error
    seconds = time.monotonic() - started
    show = _print_json if as_json else _print
    show(report, list(reader.ignored), seconds, dry_run=dry_run)
    if failure is not None:
        done = f"{report.outcomes.total()} rows are registered; run the same again for the rest"
        raise type(failure)(f"{failure.detail} {done}") from failure
    return report.exit_code


async def _register(
    settings: Settings,
    batches: Iterator[list[Registration]],
    report: Report,
    bar: _Bar,
    *,
    dry_run: bool,
) -> None:
    if dry_run:
        for _ in batches:
            bar.move()
        return
    url = keys.database_url(settings.database_url.get_secret_value(), settings.data_dir)
    catalog = await open_catalog(url)
    public = settings.public_url.rstrip("/")
    generations = Generations(catalog, clip_url=lambda name: f"{public}{keys.clip_path(name)}")
    try:
        for batch in batches:
            report.outcomes.update(await generations.register(batch))
            bar.move()
    finally:
        await catalog.close()


def _batches(
    reader: Reader, report: Report, refused: _RefusedFile | None
) -> Iterator[list[Registration]]:
    def usable() -> Iterator[Registration]:
        for row in reader:
            if isinstance(row, Registration):
                report.usable += 1
                yield row
                continue
            report.refuse(row)
            if refused is not None:
                refused.write(row)

    rows = usable()
    while batch := list(islice(rows, BATCH)):
        yield batch


def _check(settings: Settings) -> Any:  # noqa: ANN401 - a callable that says nothing or raises
    policy = Policy.of(settings.upstream_hosts, insecure=settings.upstream_allow_insecure)
    return lambda url: check_url(url, policy)


# --- files and the terminal ---------------------------------------------------------------------


def _open(stack: ExitStack, file: Path) -> io.BufferedReader:
    try:
        return stack.enter_context(file.open("rb"))
    except OSError as error:
        raise SettingsError(f"firstview: cannot read {file}: {error.strerror}") from error


class _RefusedFile:
    """All refused rows, as a spreadsheet can show them."""

    def __init__(self, file: TextIO) -> None:
        self._rows = csv.writer(file)
        self._rows.writerow(("row", "request_id", "reason"))

    def write(self, row: Refused) -> None:
        self._rows.writerow((row.row, row.request_id or "", "; ".join(row.reasons)))


def _open_refused(stack: ExitStack, file: Path) -> _RefusedFile:
    try:
        return _RefusedFile(
            stack.enter_context(file.open("w", encoding="utf-8", newline="", errors="replace"))
        )
    except OSError as error:
        raise SettingsError(f"firstview: cannot write {file}: {error.strerror}") from error


class _Bar:
    """How far into the file we are; silent unless a person watches."""

    def __init__(self, progress: Progress, stream: io.BufferedReader, name: str) -> None:
        size = stream.seek(0, io.SEEK_END) if stream.seekable() else None
        if size is not None:
            stream.seek(0)
        self._stream = stream
        self._progress = progress
        self._task = progress.add_task(name, total=size)

    def move(self) -> None:
        """Show the place that reading has reached."""
        if self._stream.seekable():
            self._progress.update(self._task, completed=self._stream.tell())


def _bar(stack: ExitStack, stream: io.BufferedReader, name: str) -> _Bar:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    progress = Progress(
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    return _Bar(stack.enter_context(progress), stream, name)


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
