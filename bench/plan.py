"""What a run consists of: the scenarios' names and the options.

Belongs here: the command line. Must not know: how anything is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCENARIOS = (
    "whole",
    "range-1m",
    "range-64k",
    "range-1k",
    "cold",
    "cold-shared",
    "crowd",
    "memory",
    "webhooks",
    "mirror",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One run, as the command line wants it."""

    scenarios: tuple[str, ...]
    rounds: int
    seconds: int
    cold_clips: int
    crowd: int
    fills: int
    fill_seconds: int
    mirror_mib: int
    json: Path | None
    work_dir: Path | None


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure firstview side by side with nginx proxy_cache, on loopback.",
    )
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help=f"{', '.join(SCENARIOS)} (default: all)")
    add("--rounds", type=int, default=5, help="rounds of nginx, firstview (default: %(default)s)")
    add(
        "--seconds",
        type=int,
        default=2,
        help="length of one warm or webhook turn (default: %(default)s)",
    )
    add("--cold-clips", type=int, default=24, help="clips of one cold turn (default: %(default)s)")
    add("--crowd", type=int, default=500, help="viewers of one cold clip (default: %(default)s)")
    add("--fills", type=int, default=200, help="fills of the memory run (default: %(default)s)")
    add(
        "--fill-seconds",
        type=int,
        default=90,
        help="longest time of the memory run (default: %(default)s)",
    )
    add(
        "--mirror-mib",
        type=int,
        default=360,
        help="MiB of clips of one mirror turn, at most 200 clips (default: %(default)s)",
    )
    add("--json", type=Path, help="also write the figures here (default: bench/results/)")
    add("--work-dir", type=Path, help="where to put servers' files (default: the temporary folder)")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.scenarios) - set(SCENARIOS))
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}")
    if given.rounds < 1 or given.seconds < 1:
        parser.error("rounds and seconds start at 1")
    wanted = set(given.scenarios or SCENARIOS)
    return Options(
        scenarios=tuple(name for name in SCENARIOS if name in wanted),
        rounds=given.rounds,
        seconds=given.seconds,
        cold_clips=given.cold_clips,
        crowd=given.crowd,
        fills=given.fills,
        fill_seconds=given.fill_seconds,
        mirror_mib=given.mirror_mib,
        json=given.json,
        work_dir=given.work_dir,
    )
