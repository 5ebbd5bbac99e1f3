"""`python -m bench`: run the scenarios one after the other, print and write what they come to.

`python -m bench report FILE …` shows what earlier runs wrote, and with `--readme` puts it into the
documentation.

Belongs here: the order of things. Must not know: how anything is measured.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from bench import archive, chart, pages, plan, report, scenarios
from bench.archive import Record
from bench.machine import Cores, describe

_ROOT = Path(__file__).resolve().parents[1]
_RESULTS = _ROOT / "bench" / "results"
_NEEDED = ("nginx", "wrk", "taskset")


def main() -> int:
    """Do what the command line asks for; 1 if a mark was missed, 2 if a program is missing."""
    if sys.argv[1:2] == ["report"]:
        return _report(sys.argv[2:])
    options = plan.parse(scenarios.NAMES, scenarios.EXTRA)
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    cores = Cores.choose(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores.load)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    machine = describe(cores)
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), flush=True)
    now, began = datetime.now(UTC), time.monotonic()
    record = Record(f"{now:%Y-%m-%d}", machine, [])
    path = options.json or _RESULTS / f"{now:%Y-%m-%dT%H%M%SZ}.json"
    for outcome in scenarios.run(options, cores):
        print("\n".join(report.lines(outcome)), flush=True)
        record.outcomes.append(outcome)
        _write(path, record)
    print(f"\n{time.monotonic() - began:.0f} s; figures in {path}")
    if options.readme:
        pages.put(_ROOT, record)
    return int(any(outcome.missed for outcome in record.outcomes))


def _report(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench report", description=_report.__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="later ones win")
    parser.add_argument("--readme", action="store_true", help="put it into README.md and docs/")
    given = parser.parse_args(arguments)
    record = archive.read(given.files)
    print(pages.summary(record))
    print(pages.details(record))
    given.files[-1].with_suffix(".svg").write_text(chart.draw(record))
    if given.readme:
        pages.put(_ROOT, record)
    return 0


def _write(path: Path, record: Record) -> None:
    """After each scenario: a run that is broken off has not been for nothing."""
    archive.write(path, record)
    path.with_suffix(".svg").write_text(chart.draw(record))


if __name__ == "__main__":
    raise SystemExit(main())
