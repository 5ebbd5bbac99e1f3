"""Figures as JSON, and back.

Belongs here: the file's form, without loss. Must not know: how anything was measured or is shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bench.results import Finding, Mark, Outcome, Sample


@dataclass(frozen=True, slots=True)
class Record:
    """One run: when, on which machine, and what came out."""

    date: str
    machine: dict[str, str]
    outcomes: list[Outcome]


def write(path: Path, record: Record) -> None:
    """Write everything, with what follows from it beside it for whoever reads the file itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {
        "date": record.date,
        "machine": record.machine,
        "scenarios": [_outcome(one) for one in record.outcomes],
    }
    path.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")


def read(paths: Sequence[Path]) -> Record:
    """Read a run, or several: a scenario of a later file takes the place of an earlier one's."""
    outcomes: dict[str, Outcome] = {}
    date, machine = "", {}
    for path in paths:
        body = json.loads(path.read_text())
        date, machine = body["date"], body["machine"]
        outcomes |= {one["name"]: _read_outcome(one) for one in body["scenarios"]}
    return Record(date, machine, list(outcomes.values()))


def _outcome(one: Outcome) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.title,
        "failed": one.failed,
        "notes": one.notes,
        "findings": [
            {
                **asdict(finding),
                "values": [_short(value) for value in finding.values],
                "median": _short(finding.spread.median),
                "verdict": one.verdict(finding),
            }
            for finding in one.findings
        ],
        "rounds": [
            {server: _sample(sample) for server, sample in each.items()} for each in one.rounds
        ],
    }


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        **{key: _short(value) for key, value in asdict(sample).items() if key != "more"},
        "more": {key: _short(value) for key, value in sample.more.items()},
        "per_second": _short(sample.per_second),
        "mib_per_second": _short(sample.mib_per_second),
        "cpu_per_gigabyte": _short(sample.cpu_per_gigabyte),
        "cpu_per_thousand": _short(sample.cpu_per_thousand),
    }


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _read_outcome(body: dict[str, Any]) -> Outcome:
    return Outcome(
        body["name"],
        body["title"],
        [
            {server: _read_sample(sample) for server, sample in each.items()}
            for each in body["rounds"]
        ],
        [_read_finding(one) for one in body["findings"]],
        body["notes"],
        body["failed"],
    )


def _read_sample(body: dict[str, Any]) -> Sample:
    return Sample(**{field.name: body[field.name] for field in fields(Sample)})


def _read_finding(body: dict[str, Any]) -> Finding:
    mark = Mark(**body["mark"]) if body["mark"] else None
    return Finding(body["name"], tuple(body["values"]), body["unit"], mark)
