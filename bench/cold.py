"""Scenarios 4 and 6: distinct cold clips, and a crowd on one cold clip.

Belongs here: what is asked for, and what is waited for. Must not know: how servers are started.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench.machine import touch_memory
from bench.plan import Options
from bench.results import MIB, Mark, Outcome, Round, Sample
from bench.servers import Pair, Server
from bench.viewers import Seen, watch

LENGTH = 15 * MIB
CONNECTIONS = 8
_MARK = Mark(1.0, at_least=True)
_LIMIT = 60.0
_TOUCH = 1024 * MIB
_STORED = "firstview_stored_total"


def cold_ids(options: Options) -> list[str]:
    """Ids of all clips of all rounds; round 0 is not measured."""
    return [
        name for turn in range(options.rounds + 1) for name in _turn_ids(turn, options.cold_clips)
    ]


def crowd_ids(options: Options) -> list[str]:
    """One id a round."""
    return [f"clip15-crowd{turn}" for turn in range(options.rounds + 1)]


def _turn_ids(turn: int, count: int) -> list[str]:
    return [f"clip15-cold{turn}x{number}" for number in range(count)]


def measure_cold(name: str, where: str, pair: Pair, options: Options) -> Outcome:
    """Each clip once, until the last viewer has all its bytes; then until the last is stored."""
    rounds = []
    for turn in range(options.rounds + 1):
        paths = [f"/videos/{name}.mp4" for name in _turn_ids(turn, options.cold_clips)]
        found = Round(*(_cold(server, paths, pair.home) for server in _both(pair)))
        if turn:
            rounds.append(found)
    asked, wanted = pair.asked(), 2 * options.cold_clips * (options.rounds + 1)
    outcome = Outcome(
        name, f"cold distinct 15 MiB clips, {CONNECTIONS} connections; {where}", _MARK, rounds
    )
    outcome.notes.append(f"upstream GETs: {asked} for {wanted} misses")
    outcome.notes.append(
        "firstview's clips are in its bucket, synced; nginx syncs nothing: see stored_seconds"
    )
    return outcome


def _cold(server: Server, paths: list[str], home: Path) -> Sample:
    os.sync()  # the other server's unwritten pages are not this one's burden
    touch_memory(home, max(_TOUCH, 2 * LENGTH * len(paths)))
    stored = server.metric(_STORED) if server.admin_port else 0.0
    cpu, began = server.cpu(), time.perf_counter()
    seen = watch(server.port, paths, connections=CONNECTIONS, seconds=_LIMIT)
    took, used = time.perf_counter() - began, server.cpu() - cpu
    more = {}
    if server.admin_port:
        _wait_stored(server, stored + len(paths))
        more = {
            "stored_seconds": time.perf_counter() - began,
            "cpu_seconds_until_stored": server.cpu() - cpu,
        }
    return _sample(seen, took, used, more)


def _wait_stored(server: Server, count: float) -> None:
    deadline = time.monotonic() + _LIMIT
    while server.metric(_STORED) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"clips were not stored within {_LIMIT} s")
        time.sleep(0.05)


def measure_crowd(pair: Pair, options: Options) -> Outcome:
    """Everyone asks for one cold clip at the same moment."""
    rounds = []
    for turn, name in enumerate(crowd_ids(options)):
        path = f"/videos/{name}.mp4"
        found = Round(*(_crowd(pair, server, path, options.crowd) for server in _both(pair)))
        if turn:
            rounds.append(found)
    return Outcome("crowd", f"{options.crowd} viewers of one cold 15 MiB clip", None, rounds)


def _both(pair: Pair) -> tuple[Server, Server]:
    return pair.nginx, pair.firstview


def _crowd(pair: Pair, server: Server, path: str, viewers: int) -> Sample:
    os.sync()
    touch_memory(pair.home, 8 * LENGTH)
    pair.asked()
    cpu, began = server.cpu(), time.perf_counter()
    seen = watch(server.port, [path] * viewers, connections=viewers, seconds=_LIMIT)
    took = time.perf_counter() - began
    first = sorted(one.first_byte for one in seen)
    more = {
        "upstream_gets": float(pair.asked()),
        "first_byte_p50_ms": first[len(first) // 2] * 1e3,
        "first_byte_max_ms": first[-1] * 1e3,
    }
    return _sample(seen, took, server.cpu() - cpu, more)


def _sample(seen: list[Seen], took: float, cpu: float, more: dict[str, float]) -> Sample:
    times = sorted(one.last_byte for one in seen)
    return Sample(
        requests=len(seen),
        seconds=took,
        received=sum(one.received for one in seen),
        p50=times[len(times) // 2],
        p99=times[min(len(times) - 1, len(times) * 99 // 100)],
        errors=sum(not one.whole for one in seen),
        cpu_seconds=cpu,
        more=more,
    )
