"""Memory: of a server that has just started, of one with many connections, of one with many fills.

Belongs here: sampling memory while they run. Must not know: how servers are started.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench import asks
from bench.clips import write_clip, write_sparse_clip
from bench.hits import CLIP, LENGTH, warm_up
from bench.machine import free_bytes, resident_bytes
from bench.plan import Setup
from bench.results import MIB, OURS, Finding, Mark, Outcome
from bench.server import Server
from bench.servers import running
from bench.viewers import drain, viewers, watch

NAMES = ("memory", "memory-fills")
_IDLE = Mark(110.0, at_least=False)
_CONNECTED = Mark(220.0, at_least=False)
_FILLING = Mark(280.0, at_least=False)
_SETTLE = 1.0
_FILL_LENGTH = 80 * 1000 * 1000
_RATES = (200_000.0, 400_000.0, 700_000.0, 1_000_000.0)
_SPARE = 8 * 1024 * MIB


def run(names: Sequence[str], setup: Setup) -> Iterator[Outcome]:
    """Each with servers of its own, fresh."""
    for name in names:
        home = setup.home / name
        (home / "files").mkdir(parents=True)
        yield (_connected if name == "memory" else _filling)(replace(setup, home=home))


def largest(server: Server) -> float:
    """MiB of RAM of the largest of a server's processes."""
    return max(map(resident_bytes, server.pids)) / MIB


def _connected(setup: Setup) -> Outcome:
    count = setup.options.connections
    write_clip(setup.home / "files" / "clip15.mp4", LENGTH)
    findings: list[Finding] = []
    failed = 0
    with running(setup.home, setup.cores, [CLIP]) as field:
        time.sleep(_SETTLE)
        idle = {name: largest(server) for name, server in field.servers.items()}
        warm_up(field, [CLIP])
        for name, server in field.servers.items():
            wanted = asks.blocks(server.path(CLIP), LENGTH, 64 * 1024, 1)
            with viewers(server.port, count) as crowd:
                once, cut = drain(crowd, iter((wanted * count)[:count]), seconds=30)
                kept = largest(server)
                done, _ = drain(crowd, itertools.cycle(wanted), seconds=setup.options.seconds + 1)
                asking = largest(server)
            ours = name == OURS
            if ours:
                failed = len(cut) + sum(not one.whole for one in once + done)
            findings += [
                _mib(f"{name}, idle", idle[name], _IDLE if ours else None),
                _mib(
                    f"{name}, connections that have asked once", kept, _CONNECTED if ours else None
                ),
                _mib(
                    f"{name}, connections that go on asking", asking, _CONNECTED if ours else None
                ),
            ]
        return Outcome(
            "memory",
            f"RAM of the largest process: idle, and with {count:,} connections, 64 KiB ranges",
            findings=findings,
            notes=list(field.absent),
            failed=failed,
        )


def _mib(name: str, value: float, mark: Mark | None = None) -> Finding:
    return Finding(name, (value,), "MiB", mark)


def fills_that_fit(wanted: int, work_dir: Path) -> int:
    """As many fills as the disk has room for, with some to spare."""
    return max(1, min(wanted, (free_bytes(work_dir) - _SPARE) // _FILL_LENGTH))


def _filling(setup: Setup) -> Outcome:
    wanted = setup.options.fills
    count = fills_that_fit(wanted, setup.home)
    write_sparse_clip(setup.home / "files" / "clip80.mp4", _FILL_LENGTH)
    clips = [f"clip80-fill{number}" for number in range(count)]
    settings = {"FIRSTVIEW_CACHE_MAX_BYTES": "64GiB"}
    with running(setup.home, setup.cores, clips, peers=(), settings=settings) as field:
        outcome = _fill(field.ours, clips, setup.options.fill_seconds)
    if count < wanted:
        outcome.notes.append(f"{wanted} fills did not fit on the disk: {count} were run")
    return outcome


def _fill(server: Server, clips: list[str], seconds: float) -> Outcome:
    """Start every fill at once; stop when all are stored, or when the time is over."""
    began, peak, stored, most, next_look = time.perf_counter(), largest(server), 0.0, 0.0, 0.0

    def look() -> bool:
        nonlocal peak, stored, most, next_look
        peak = max(peak, largest(server))
        if time.perf_counter() < next_look:
            return True
        next_look = time.perf_counter() + 0.5
        stored = server.metric("firstview_stored_total")
        most = max(most, server.metric("firstview_fills_in_flight"))
        return stored < len(clips)

    seen = watch(
        server.port,
        asks.whole(map(server.path, clips)),
        connections=len(clips),
        rates=itertools.cycle(_RATES),
        seconds=seconds,
        each_tick=look,
    )
    took = time.perf_counter() - began
    outcome = Outcome(
        "memory-fills",
        f"RAM of the largest process: {len(clips)} cold 80 MB fills at once, viewers at 0.2 to "
        "1 MB a second",
        findings=[
            _mib(f"{OURS}, peak", peak, _FILLING),
            Finding(f"{OURS}, fills at once", (most,)),
            Finding(f"{OURS}, stored", (stored,), f"in {took:.0f} s"),
        ],
        failed=sum(one.status != 200 for one in seen),
    )
    if stored < len(clips):
        outcome.notes.append(f"stopped after {seconds} s")
    return outcome
