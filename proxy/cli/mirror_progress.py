"""How far `firstview mirror` is: a bar where a person watches, else a line now and then.

Belongs here: rates, what is left, and showing both. Must not know: what is counted, or how.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from proxy.cli.words import printable, size, span

_REFRESH: Final = 0.25
_LINE_EVERY: Final = 10.0
_REMEMBERED: Final = 30.0
"""Seconds over which a rate is taken."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was done by a moment: clips that are settled, bytes that have arrived, failures."""

    at: float
    done: int
    bytes: int
    failed: int = 0


class Pace:
    """Rates over the last half minute."""

    def __init__(self) -> None:
        """Begin without any."""
        self._samples: deque[Sample] = deque()

    def add(self, sample: Sample) -> None:
        """Take a sample that is newer than all others."""
        self._samples.append(sample)
        while len(self._samples) > 2 and sample.at - self._samples[1].at >= _REMEMBERED:  # noqa: PLR2004 - a rate needs two
            self._samples.popleft()

    def bytes_a_second(self) -> float:
        """Bytes a second; 0 as long as nobody knows."""
        first, last = self._samples[0], self._samples[-1]
        return (last.bytes - first.bytes) / max(last.at - first.at, 1e-9) if last != first else 0.0

    def seconds_left(self, left: int) -> float | None:
        """Seconds that so many clips will take, None: nobody knows."""
        first, last = self._samples[0], self._samples[-1]
        done = last.done - first.done
        return left * (last.at - first.at) / done if done > 0 else None


class Display:
    """Shows progress until it is cancelled. All of it goes to stderr."""

    def __init__(self) -> None:
        """Find out whether somebody watches."""
        self._pace = Pace()
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.is_live = self._console.is_terminal

    def say(self, text: str, style: str = "") -> None:
        """Write a line above the bar."""
        if self.is_live:
            self._console.print(Text(printable(text), style))
        else:
            print(printable(text), file=sys.stderr, flush=True)

    async def run(self, look: Callable[[], Sample], total: Callable[[], int]) -> None:
        """Show again and again what is done, and how much of all there is."""
        if self.is_live:
            await self._bar(look, total)
            return
        self._pace.add(look())
        while True:
            await asyncio.sleep(_LINE_EVERY)
            self.say(self._line(look(), total()))

    async def _bar(self, look: Callable[[], Sample], total: Callable[[], int]) -> None:
        columns = (
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} clips"),
            TextColumn("{task.fields[facts]}", style="cyan"),
            TextColumn("{task.fields[failed]}", style="red"),
        )
        bars = Progress(*columns, console=self._console, expand=True, auto_refresh=False)
        task = bars.add_task("mirror", total=max(1, total()), facts="", failed="")

        def update() -> None:
            sample = look()
            self._pace.add(sample)
            most = max(sample.done, total())
            failed = f"{sample.failed:,} failed" if sample.failed else ""
            facts = "  ".join(self._facts(sample, most))
            bars.update(task, completed=sample.done, total=most, facts=facts, failed=failed)
            bars.refresh()

        with bars:
            try:
                while True:
                    update()
                    await asyncio.sleep(_REFRESH)
            finally:
                update()

    def _line(self, sample: Sample, total: int) -> str:
        self._pace.add(sample)
        most = max(sample.done, total)
        facts = [f"{sample.done:,}/{most:,} clips", *self._facts(sample, most)]
        return ", ".join([*facts, f"{sample.failed:,} failed"] if sample.failed else facts)

    def _facts(self, sample: Sample, total: int) -> list[str]:
        facts = [size(sample.bytes), f"{size(self._pace.bytes_a_second())}/s"]
        left = self._pace.seconds_left(total - sample.done)
        if left is not None and total > sample.done:
            facts.append(f"{span(left)} left")
        return facts
