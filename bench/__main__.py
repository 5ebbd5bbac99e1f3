"""`python -m bench`: run the scenarios one after the other, print and write what they come to.

Belongs here: which servers each scenario needs, and the order. Must not know: how it is measured.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench import cold, memory, mirror, plan, postgres, report, warm, webhooks
from bench.clips import write_clip, write_sparse_clip
from bench.machine import Cores
from bench.plan import Options
from bench.results import Outcome
from bench.servers import alone, running

_RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run what the command line asks for; 1 if a mark was missed, 2 if a program is missing."""
    options = plan.parse()
    missing = [name for name in ("nginx", "wrk", "taskset") if shutil.which(name) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 2
    cores = Cores.choose()
    os.sched_setaffinity(0, cores.load)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"machine: {cores.note}", flush=True)
    outcomes = []
    began = time.monotonic()
    for outcome in _run(options, cores):
        print("\n".join(report.lines(outcome)), flush=True)
        outcomes.append(outcome)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = options.json or _RESULTS / f"{stamp}.json"
    report.write(path, cores.note, outcomes)
    print(f"\n{time.monotonic() - began:.0f} s; figures in {path}")
    return int(any(outcome.verdict not in {"", "pass"} for outcome in outcomes))


def _run(options: Options, cores: Cores) -> Iterator[Outcome]:
    warm_ones = [name for name in options.scenarios if name in warm.BLOCKS]
    if warm_ones:
        yield from _warm(warm_ones, options, cores)
    for name in options.scenarios:
        if name not in warm.BLOCKS:
            with tempfile.TemporaryDirectory(prefix="bench-", dir=options.work_dir) as folder:
                if name == "webhooks":
                    yield from _webhooks(Path(folder), options, cores)
                elif name == "mirror":
                    yield from _mirror(Path(folder), options, cores)
                elif name == "cold-shared":
                    yield _shared(name, Path(folder), options, cores)
                else:
                    yield _cold(name, Path(folder), options, cores)


def _warm(names: list[str], options: Options, cores: Cores) -> Iterator[Outcome]:
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.work_dir) as folder:
        home = Path(folder)
        (home / "files").mkdir()
        write_clip(home / "files" / "clip15.mp4", warm.LENGTH)
        with running(home, cores, [warm.CLIP]) as pair:
            warm.warm_up(pair, f"/videos/{warm.CLIP}.mp4")
            for name in names:
                yield warm.measure(name, pair, options, cores)


def _shared(name: str, home: Path, options: Options, cores: Cores) -> Outcome:
    """The same on all cores at once, the load included: a process with threads may use them."""
    os.sched_setaffinity(0, cores.server | cores.load)
    try:
        return _cold(name, home, options, Cores.shared())
    finally:
        os.sched_setaffinity(0, cores.load)


def _cold(name: str, home: Path, options: Options, cores: Cores) -> Outcome:
    (home / "files").mkdir()
    if name == "memory":
        count = memory.fills_that_fit(options, home)
        write_sparse_clip(home / "files" / "clip80.mp4", memory.LENGTH)
        settings = {"FIRSTVIEW_CACHE_MAX_BYTES": "64GiB"}
        with running(home, cores, memory.ids(count), settings) as pair:
            return memory.measure(pair, count, options)
    write_clip(home / "files" / "clip15.mp4", cold.LENGTH)
    if name == "crowd":
        with running(home, cores, cold.crowd_ids(options)) as pair:
            return cold.measure_crowd(pair, options)
    with running(home, cores, cold.cold_ids(options)) as pair:
        return cold.measure_cold(name, cores.note, pair, options)


def _webhooks(home: Path, options: Options, cores: Cores) -> Iterator[Outcome]:
    """One process on each database. Its PostgreSQL shares the core of the load."""
    signer, origins = webhooks.Signer(), {}
    where = postgres.programs()
    with contextlib.ExitStack() as stack:
        databases = {"SQLite": ""}
        if where is not None:
            databases["PostgreSQL"] = stack.enter_context(postgres.cluster(where, cores.upstream))
        for name, database in databases.items():
            place = home / name
            (place / "files").mkdir(parents=True)
            (place / "files" / webhooks.JWKS).write_bytes(signer.jwks())
            settings = {"FIRSTVIEW_WORKER": "false", "FIRSTVIEW_DATABASE_URL": database}
            origins[name] = stack.enter_context(alone(place, cores, settings))
        yield from webhooks.measure(origins, signer, options)
    if where is None:
        print("not measured: PostgreSQL is not installed", file=sys.stderr)


def _mirror(home: Path, options: Options, cores: Cores) -> Iterator[Outcome]:
    """Each concurrency has a server of its own; they take turns."""
    origins = {}
    with contextlib.ExitStack() as stack:
        for hands in mirror.HANDS:
            place = home / str(hands)
            (place / "files").mkdir(parents=True)
            for kind, size in mirror.SIZES.items():
                write_clip(place / "files" / f"{kind}.mp4", size)
            settings = {
                "FIRSTVIEW_MIRROR_CONCURRENCY": str(hands),
                "FIRSTVIEW_JOBS_POLL": f"{mirror.POLL}s",
            }
            origins[hands] = stack.enter_context(alone(place, cores, settings))
        yield from mirror.measure(origins, options)


if __name__ == "__main__":
    sys.exit(main())
