"""What a run prints and writes.

Belongs here: tables and JSON. Must not know: how anything was measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bench.results import Outcome, Sample, Spread

_HEADER = (
    f"{'':11}{'req/s':>10}{'MB/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU':>6}{'us/req':>9}{'err':>5}"
)


def lines(outcome: Outcome) -> list[str]:
    """One scenario as it is printed: medians of each server, then the ratio and its spread."""
    printed = ["", f"{outcome.name}: {outcome.title}"]
    if outcome.rounds:
        printed += [_HEADER]
        printed += [_line("nginx", [each.nginx for each in outcome.rounds])]
        printed += [_line("firstview", [each.firstview for each in outcome.rounds])]
    found = outcome.ratios
    if found is not None:
        printed.append(
            f"  firstview/nginx, {len(outcome.rounds)} rounds: "
            f"min {found.low:.2f}  median {found.median:.2f}  max {found.high:.2f}"
        )
        printed += _more(outcome)
    printed += [f"  {name}: {value:.1f}" for name, value in outcome.values.items()]
    printed += [f"  note: {note}" for note in outcome.notes]
    if outcome.mark is not None:
        printed.append(f"  mark {outcome.mark}: {outcome.verdict}")
    return printed


def _line(name: str, samples: Sequence[Sample]) -> str:
    middle = [
        Spread.of(values).median
        for values in zip(*(_columns(sample) for sample in samples), strict=True)
    ]
    errors = sum(sample.errors for sample in samples)
    return (
        f"  {name:9}{middle[0]:10.1f}{middle[1]:9.1f}{middle[2]:9.2f}{middle[3]:9.2f}"
        f"{middle[4]:6.2f}{middle[5]:9.0f}{errors:5d}"
    )


def _columns(sample: Sample) -> tuple[float, ...]:
    return (
        sample.per_second,
        sample.megabytes_per_second,
        sample.p50 * 1e3,
        sample.p99 * 1e3,
        sample.cpu_share,
        sample.cpu_micros,
    )


def _more(outcome: Outcome) -> list[str]:
    printed = []
    for name, samples in (
        ("nginx", [each.nginx for each in outcome.rounds]),
        ("firstview", [each.firstview for each in outcome.rounds]),
    ):
        for key in samples[0].more:
            spread = Spread.of(sample.more[key] for sample in samples)
            printed.append(
                f"  {name} {key}: min {spread.low:.2f}  median {spread.median:.2f}  "
                f"max {spread.high:.2f}"
            )
    return printed


def write(path: Path, machine: str, outcomes: Sequence[Outcome]) -> None:
    """Write everything as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"machine": machine, "scenarios": [outcome.as_json() for outcome in outcomes]}
    path.write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n")
