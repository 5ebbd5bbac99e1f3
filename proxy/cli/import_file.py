"""`firstview import FILE`: put what a file lists into the catalog.

Belongs here: opening the file, batches of it, the progress bar. Must not know: how a row is read,
or what becomes of it (`importing.py`).
"""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from proxy.catalog.imports import Reader, Refused, kind_of
from proxy.cli import importing
from proxy.cli.importing import Options
from proxy.errors import SettingsError
from proxy.records import Registration
from proxy.settings import Settings

BATCH: Final = 1000
"""Rows registered in one transaction."""


def run(settings: Settings, file: Path, options: Options) -> int:
    """Import a file and print the report; returns the exit code.

    Raises SettingsError if a file cannot be opened, BadRequest if it cannot be read as a whole,
    CatalogError after printing what was done until then.
    """
    with ExitStack() as stack:
        stream = _open(stack, file)
        bar = _bar(stack, stream, file.name)
        reader = Reader(stream, kind_of(file.name), importing.checking(settings))
        return importing.run(
            settings,
            options,
            _batches(reader),
            moved=lambda _: bar.move(),
            ignored=lambda: reader.ignored,
        )


async def _batches(reader: Reader) -> AsyncIterator[list[Registration | Refused]]:
    rows = iter(reader)
    while batch := list(islice(rows, BATCH)):
        yield batch


def _open(stack: ExitStack, file: Path) -> io.BufferedReader:
    try:
        return stack.enter_context(file.open("rb"))
    except OSError as error:
        raise SettingsError(f"firstview: cannot read {file}: {error.strerror}") from error


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
