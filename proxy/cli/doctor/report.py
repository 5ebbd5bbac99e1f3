"""The report: a list for people, and the same as JSON.

Belongs here: lines, colours, exit codes. Must not know: any check.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from proxy.cli.doctor.finding import Finding, Mark
from proxy.cli.exit_codes import PARTLY
from proxy.cli.words import printable

_STYLES: Final = {
    Mark.OK: "green",
    Mark.WARNING: "yellow",
    Mark.FAILS: "bold red",
    Mark.UNCHECKED: "dim",
}
_MARKS: Final = max(map(len, Mark))
_NARROWEST: Final = 40


def exit_code(findings: Sequence[Finding]) -> int:
    """0 unless something fails."""
    return PARTLY if any(finding.mark is Mark.FAILS for finding in findings) else 0


def as_dict(findings: Sequence[Finding], seconds: float) -> dict[str, Any]:
    """The report for programs."""
    counts = Counter(finding.mark for finding in findings)
    return {
        "healthy": exit_code(findings) == 0,
        "counts": {mark.value: counts[mark] for mark in Mark},
        "seconds": round(seconds, 3),
        "findings": [asdict(finding) for finding in findings],
    }


def print_list(findings: Sequence[Finding], seconds: float) -> None:
    """Write the report for people to stdout."""
    console = Console(highlight=False, soft_wrap=True)
    width = max(_NARROWEST, console.width) if console.is_terminal else None
    for text, style in lines(findings, seconds, width):
        console.print(Text(text, style))


def lines(
    findings: Sequence[Finding], seconds: float, width: int | None
) -> Iterator[tuple[str, str]]:
    """Each line and its colour; wrapped at `width` columns, None: as long as they are."""
    for area, found in groupby(findings, key=lambda finding: finding.area):
        yield area, "bold"
        group = list(found)
        names = max(len(finding.check) for finding in group)
        for finding in group:
            start = f"  {finding.mark:<{_MARKS}}  {finding.check:<{names}}  "
            yield from _wrapped(start, finding.seen, width, _STYLES[finding.mark])
            if finding.advice:
                yield from _wrapped(" " * (len(start) - 2) + "→ ", finding.advice, width, "")
        yield "", ""
    counts = Counter(finding.mark for finding in findings)
    said = ", ".join(f"{counts[mark]} {_noun(mark, counts[mark])}" for mark in Mark if counts[mark])
    yield f"{said} ({seconds:.1f} s)", "bold"


def _noun(mark: Mark, count: int) -> str:
    if mark is Mark.WARNING and count != 1:
        return "warnings"
    return "fail" if mark is Mark.FAILS and count != 1 else mark


def _wrapped(start: str, text: str, width: int | None, style: str) -> Iterator[tuple[str, str]]:
    text = printable(text)
    if width is None:
        yield f"{start}{text}".rstrip(), style
        return
    room = max(_NARROWEST // 2, width - len(start))
    for number, line in enumerate(textwrap.wrap(text, room, break_on_hyphens=False) or [""]):
        yield (start if number == 0 else " " * len(start)) + line, style
