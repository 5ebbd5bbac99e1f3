"""What a run prints on the terminal.

Belongs here: lines of text. Must not know: how anything was measured, files.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.results import MIB, Finding, Outcome, Sample, Spread

COLUMNS = (
    "req/s",
    "MiB/s",
    "p50 ms",
    "p99 ms",
    "CPU s/GB",
    "CPU s/1000",
    "core",
    "load",
    "RSS MiB",
)
"""Heads of the table of servers; `core` and `load` are shares of one core."""


def lines(outcome: Outcome) -> list[str]:
    """One scenario: medians of each server, then what is found, with its spread and mark."""
    printed = ["", f"{outcome.name}: {outcome.title}"]
    if outcome.rounds:
        printed.append(f"  {'':22}" + "".join(f"{head:>11}" for head in COLUMNS) + f"{'err':>5}")
    for server in outcome.servers:
        samples = outcome.samples(server)
        errors = sum(sample.errors for sample in samples)
        row = "".join(f"{cell:>11}" for cell in cells(samples))
        printed.append(f"  {server:22}{row}{errors:5d}")
        printed += [
            f"    {key}: {spread(Spread.of(sample.more[key] for sample in samples))}"
            for key in samples[0].more
        ]
    printed += [_finding(outcome, finding) for finding in outcome.findings]
    return printed + [f"  note: {note}" for note in outcome.notes]


def cells(samples: Sequence[Sample]) -> list[str]:
    """The values of `COLUMNS`, each the median of the rounds; a dash for what was not measured."""
    rows = (
        (
            one.per_second,
            one.mib_per_second,
            one.p50 * 1e3,
            one.p99 * 1e3,
            one.cpu_per_gigabyte,
            one.cpu_per_thousand,
            one.cpu_share,
            one.load_share,
            one.resident / MIB,
        )
        for one in samples
    )
    found = (Spread.of(values).median for values in zip(*rows, strict=True))
    return [number(value) if value else "-" for value in found]


def number(value: float) -> str:
    """Three digits that mean something, and thousands apart."""
    if not value:
        return "0"
    if abs(value) < 10:
        return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def spread(found: Spread) -> str:
    """Smallest, middle and largest; one value where they are the same."""
    if found.low == found.high:
        return number(found.median)
    return f"min {number(found.low)}  median {number(found.median)}  max {number(found.high)}"


def _finding(outcome: Outcome, finding: Finding) -> str:
    line = f"  {finding.name}: {spread(finding.spread)} {finding.unit}".rstrip()
    if finding.mark is None:
        return line
    return f"{line}   mark {finding.mark}: {outcome.verdict(finding)}"
