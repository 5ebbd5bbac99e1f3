"""A run as Markdown, and its place in the documentation.

Belongs here: tables, and the blocks between markers that they replace. Must not know: how anything
was measured.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from bench import chart
from bench.archive import Record
from bench.report import COLUMNS, number
from bench.report import cells as row_of
from bench.results import Finding, Outcome, Spread

PICTURE = Path("docs") / "images" / "bench.svg"
_PAGES = {Path("README.md"): PICTURE, Path("docs") / "performance.md": Path("images") / "bench.svg"}
_BEGIN, _END = "<!-- bench: begin -->", "<!-- bench: end -->"


def put(root: Path, record: Record) -> None:
    """Write the picture, and the tables into both pages. Raises ValueError without markers."""
    (root / PICTURE).write_text(chart.draw(record))
    for page, picture in _PAGES.items():
        body = f"{summary(record)}\n{_image(picture)}\n"
        if page.name != "README.md":
            body += f"\n{details(record)}"
        path = root / page
        path.write_text(replaced(path.read_text(), body))


def replaced(text: str, body: str) -> str:
    """The page with another body between the markers. Raises ValueError if they are not there."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"no {_BEGIN} … {_END}")
    return f"{before}{begin}\n{body}\n{end}{after}"


def summary(record: Record) -> str:
    """Every goal, what was measured, and whether it is met."""
    lines = [_where(record), "", "| | | min / **median** / max | goal | |", "|---|---|---|---|---|"]
    for outcome in record.outcomes:
        title = short(outcome)
        for finding in outcome.findings:
            if finding.mark is not None:
                verdict = outcome.verdict(finding).replace("pass", "met")
                verdict = re.sub("^MISS", "**missed**", verdict)
                cells = (title, finding.name, _spread(finding), str(finding.mark), verdict)
                lines.append(f"| {' | '.join(cells)} |")
                title = ""
    return "\n".join(lines) + "\n"


def short(outcome: Outcome) -> str:
    """Its title without what is only to be known once."""
    return outcome.title.partition(";")[0]


def details(record: Record) -> str:
    """Every scenario: medians of each server, all findings, all notes."""
    return "\n".join(_scenario(outcome) for outcome in record.outcomes)


def _where(record: Record) -> str:
    machine = "; ".join(f"{name} {value}" for name, value in record.machine.items())
    # What all but a few scenarios have; some take more of them, and shorter ones.
    rounds = Counter(len(one.rounds) for one in record.outcomes).most_common(1)[0][0]
    return f"{record.date}, {rounds} rounds; {machine}."


def _scenario(outcome: Outcome) -> str:
    lines = [f"**{outcome.name}**: {outcome.title}.", ""]
    if outcome.rounds:
        lines += [f"| | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
        for server in outcome.servers:
            row = " | ".join(row_of(outcome.samples(server)))
            lines.append(f"| {server} | {row} |")
        lines.append("")
    for finding in outcome.findings:
        verdict = "" if finding.mark is None else f"; goal {finding.mark}"
        lines.append(f"- {finding.name}: {_spread(finding)}{verdict}")
    lines += [f"- {note}" for note in outcome.notes]
    return "\n".join(lines) + "\n"


def _spread(finding: Finding) -> str:
    unit = f" {finding.unit}" if finding.unit else ""
    found: Spread = finding.spread
    if found.low == found.high:
        return f"**{number(found.median)}**{unit}"
    return f"{number(found.low)} / **{number(found.median)}** / {number(found.high)}{unit}"


def _image(path: Path) -> str:
    return f"![Requests a second of each server, nginx = 1]({path.as_posix()})"
