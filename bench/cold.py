"""Distinct cold clips: each is asked for once, and is nowhere but upstream.

Belongs here: what is asked for, and what is waited for. Must not know: how servers are started.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from statistics import median

from bench.asks import whole
from bench.clips import write_clip
from bench.machine import running_on, touch_memory
from bench.plan import Setup
from bench.results import MIB, OURS, Mark, Outcome, Sample, against_all
from bench.server import Server
from bench.servers import PEERS, Field, running
from bench.turns import all_of

NAMES = ("cold", "cold-shared")
LENGTH = 15 * MIB
CONNECTIONS = 8
_MARK = Mark(1.5, at_least=True)
_LIMIT = 60.0
_TOUCH = 1024 * MIB
_STORED = "firstview_stored_total"


def run(names: Sequence[str], setup: Setup) -> Iterator[Outcome]:
    """On cores of their own; and on all cores at once, the load included, against nginx alone."""
    for name in names:
        cores = setup.cores.everyone if name == "cold-shared" else setup.cores
        peers = ("nginx",) if name == "cold-shared" else PEERS
        home = setup.home / name
        (home / "files").mkdir(parents=True)
        write_clip(home / "files" / "clip15.mp4", LENGTH)
        count = setup.options.cold_clips
        clips = [clip for turn in range(setup.options.rounds + 1) for clip in _ids(turn, count)]
        with running_on(cores.load), running(home, cores, clips, peers=peers) as field:
            yield _measure(name, cores.note, field, setup)


def _ids(turn: int, count: int) -> list[str]:
    return [f"clip15-cold{turn}x{number}" for number in range(count)]


def _measure(name: str, where: str, field: Field, setup: Setup) -> Outcome:
    count = setup.options.cold_clips

    def turn(server: Server, number: int) -> Sample:
        return _cold(server, _ids(number, count), field)

    field.asked()
    rounds = field.play(setup.options.rounds, turn)
    wanted = len(field.servers) * count * (setup.options.rounds + 1)
    title = f"cold distinct 15 MiB clips, {CONNECTIONS} connections; {where}"
    findings = against_all(rounds, _MARK if name == "cold" else None)
    outcome = Outcome(name, title, rounds, findings, list(field.absent))
    outcome.notes.append(f"upstream GETs: {field.asked(wanted)} for {wanted} misses")
    stored = median(servers[OURS].more["stored_seconds"] for servers in rounds)
    outcome.notes.append(
        f"{stored:.2f} s after a turn's begin all of firstview's clips are verified, and synced in"
        " its bucket; the others verify and sync nothing, and have no bucket"
    )
    return outcome


def _cold(server: Server, clips: list[str], field: Field) -> Sample:
    os.sync()  # the other servers' unwritten pages are not this one's burden
    touch_memory(field.home, max(_TOUCH, 2 * LENGTH * len(clips)))
    stored = server.metric(_STORED) if server.admin_port else 0.0
    cpu, began = server.cpu(), time.perf_counter()
    sample, _ = all_of(server, whole(server.path(clip) for clip in clips), connections=CONNECTIONS)
    if server.admin_port:
        _wait_stored(server, stored + len(clips))
        sample.more["stored_seconds"] = time.perf_counter() - began
        sample.more["cpu_seconds_until_stored"] = server.cpu() - cpu
    return sample


def _wait_stored(server: Server, count: float) -> None:
    deadline = time.monotonic() + _LIMIT
    while server.metric(_STORED) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"clips were not stored within {_LIMIT} s")
        time.sleep(0.05)
