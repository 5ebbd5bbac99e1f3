"""What a run consists of: which scenarios, how long, how many of everything.

Belongs here: the command line. Must not know: how anything is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Cores

_SIZES = {
    "rounds": (5, 1, "rounds of all servers"),
    "seconds": (2, 1, "length of one turn of hits or webhooks"),
    "zipf_clips": (10_000, 300, "clips of the Zipf distribution"),
    "cold_clips": (12, 2, "15 MiB clips of one cold turn"),
    "first_bytes": (60, 10, "clips of one turn that measures first bytes"),
    "crowd": (1000, 100, "viewers of one cold clip"),
    "connections": (2000, 200, "connections of the memory run"),
    "fills": (200, 10, "fills of the memory run"),
    "fill_seconds": (90, 10, "longest time of those fills"),
    "growth_clips": (1_000_000, 20_000, "cached clips to grow to"),
    "mirror_mib": (360, 30, "MiB of clips of one mirror turn, at most 200 clips"),
}
"""Of each number: its default, the default with --quick, and what it counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One run, as the command line wants it."""

    scenarios: tuple[str, ...]
    rounds: int
    seconds: int
    zipf_clips: int
    cold_clips: int
    first_bytes: int
    crowd: int
    connections: int
    fills: int
    fill_seconds: int
    growth_clips: int
    mirror_mib: int
    json: Path | None
    work_dir: Path | None
    readme: bool


@dataclass(frozen=True, slots=True)
class Setup:
    """What a scenario is given: the options, the cores, an empty directory of its own."""

    options: Options
    cores: Cores
    home: Path


def parse(
    names: Sequence[str], extra: Sequence[str], arguments: Sequence[str] | None = None
) -> Options:
    """Read the command line; `extra` scenarios run only when they are named."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure firstview side by side with nginx, Varnish and Traffic Server, on "
        "loopback. `python -m bench report FILE …` renders what earlier runs wrote.",
    )
    add = parser.add_argument
    add(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help=f"{', '.join(names)} (default: all); or {', '.join(extra)}",
    )
    add("--quick", action="store_true", help="small sizes: does it work, not how fast is it")
    for name, (full, quick, what) in _SIZES.items():
        add(f"--{name.replace('_', '-')}", type=int, help=f"{what} (default: {full}; {quick})")
    add("--json", type=Path, help="write the figures here (default: a file in bench/results/)")
    add("--work-dir", type=Path, help="where to put servers' files (default: the temporary folder)")
    add("--readme", action="store_true", help="put tables and picture into README.md and docs/")
    given = vars(parser.parse_args(arguments))
    unknown = sorted(set(given["scenarios"]) - {*names, *extra})
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    sizes = {
        name: (quick if given["quick"] else full) if given[name] is None else given[name]
        for name, (full, quick, _) in _SIZES.items()
    }
    if min(sizes.values()) < 1:
        parser.error("every number starts at 1")
    wanted = set(given["scenarios"] or names)
    if given["readme"] and (given["quick"] or not wanted >= set(names)):
        parser.error("--readme is for whole runs; `report` puts files of several runs together")
    return Options(
        scenarios=tuple(name for name in (*names, *extra) if name in wanted),
        json=given["json"],
        work_dir=given["work_dir"],
        readme=given["readme"],
        **sizes,
    )
