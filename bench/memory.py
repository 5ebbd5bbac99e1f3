"""Scenario 5: how much memory many large fills with slow viewers take.

Belongs here: sampling firstview's memory while they run. Must not know: how servers are started.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from bench.machine import free_bytes, resident_bytes
from bench.plan import Options
from bench.results import MIB, Mark, Outcome
from bench.servers import Pair
from bench.viewers import watch

LENGTH = 80 * 1000 * 1000
_MARK = Mark(300.0, at_least=False)
_RATES = (200_000.0, 400_000.0, 700_000.0, 1_000_000.0)
_SPARE = 8 * 1024 * MIB


def fills_that_fit(options: Options, work_dir: Path) -> int:
    """As many fills as the disk has room for, with some to spare."""
    return max(1, min(options.fills, (free_bytes(work_dir) - _SPARE) // LENGTH))


def ids(count: int) -> list[str]:
    """One id a fill."""
    return [f"clip80-fill{number}" for number in range(count)]


def measure(pair: Pair, count: int, options: Options) -> Outcome:
    """Start every fill at once; stop when all are stored, or when the time is over."""
    server, began = pair.firstview, time.perf_counter()
    idle = resident_bytes(server.pid)
    peak, stored, most, next_look = idle, 0.0, 0.0, 0.0

    def look() -> bool:
        nonlocal peak, stored, most, next_look
        peak = max(peak, resident_bytes(server.pid))
        if time.perf_counter() < next_look:
            return True
        next_look = time.perf_counter() + 0.5
        stored = server.metric("firstview_stored_total")
        most = max(most, server.metric("firstview_fills_in_flight"))
        return stored < count

    paths = [f"/videos/{name}.mp4" for name in ids(count)]
    seen = watch(
        server.port,
        paths,
        connections=count,
        rates=itertools.cycle(_RATES),
        seconds=options.fill_seconds,
        each_tick=look,
    )
    answered = sum(one.status == 200 for one in seen)
    outcome = Outcome(
        "memory",
        f"{count} cold 80 MB fills at once, viewers at 0.2 to 1 MB/s: peak RSS, MiB",
        _MARK,
        values={
            "idle_rss_mib": idle / MIB,
            "peak_rss_mib": peak / MIB,
            "fills_at_once": most,
            "stored": stored,
            "seconds": time.perf_counter() - began,
            "viewers_answered": float(answered),
            "megabytes_filled": server.metric("firstview_filled_bytes_total") / 1e6,
        },
        judged="peak_rss_mib",
        failed=count - answered,
    )
    if count < options.fills:
        outcome.notes.append(f"{options.fills} fills did not fit on the disk: {count} were run")
    if stored < count:
        outcome.notes.append(f"stopped after {options.fill_seconds} s with {stored:.0f} stored")
    return outcome
