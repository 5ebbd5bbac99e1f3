"""What is being tried just now, where a person watches.

Belongs here: a line a check on stderr. Must not know: what the checks find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from proxy.cli.doctor.finding import Mark, Notes
from proxy.cli.words import printable


class Display:
    """A context manager; shows nothing unless stderr is a terminal."""

    def __init__(self, areas: Sequence[str]) -> None:
        """Take the names of all checks."""
        console = Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(finished_text="·"),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[step]}", style="dim", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {
            area: self._bars.add_task(area, total=1, step="") for area in areas
        }

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def told(self, notes: Notes, ended: bool) -> None:
        """Show what a check does, or that it has ended."""
        wrong = sum(finding.mark in {Mark.FAILS, Mark.WARNING} for finding in notes.findings)
        step = f"{wrong} to look at" if ended and wrong else "" if ended else notes.step
        self._bars.update(self._tasks[notes.area], completed=int(ended), step=printable(step))
