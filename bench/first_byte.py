"""Time to the first byte of a cold clip over asking upstream, and of a far seek into one.

Belongs here: asking everybody in turn, one reply after the other. Must not know: how servers are
started.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from bench.asks import Ask
from bench.clips import write_clip, write_sparse_clip
from bench.hits import wait_quiet
from bench.nginx import SLICED
from bench.plan import Setup
from bench.results import (
    MIB,
    OURS,
    PEER,
    Finding,
    Mark,
    Outcome,
    Round,
    Sample,
    percentile,
    ratios,
)
from bench.server import Server
from bench.servers import running
from bench.viewers import Seen, Viewer

NAMES = ("first-byte", "far-seek")
DIRECT = "direct"
_SLICE = "nginx slice"
_P50, _P99 = Mark(1.0, at_least=False), Mark(10.0, at_least=False)
_PAUSE = 0.02
"""Seconds between two questions, in which a fill ends."""
_FAR_PAUSE = 0.7
"""Seconds of a step in which those who fetch the whole clip get at its end."""
_IDLE = 0.02
"""Seconds of CPU in one step below which a server is done."""
_LONGEST = 10.0
"""Seconds for which a server may go on with its work before the next one is asked."""
_FAR_KIND = "clip500_100m"
"""500 MB at 100 MiB a second: nobody has the end of it before some seconds have passed."""
_FAR_LENGTH = 500_000_000
_FAR = f"bytes={_FAR_LENGTH * 9 // 10}-{_FAR_LENGTH * 9 // 10 + 65_535}"


def run(names: Sequence[str], setup: Setup) -> Iterator[Outcome]:
    """Each with servers of its own."""
    for name in names:
        home = setup.home / name
        (home / "files").mkdir(parents=True)
        yield (_cold if name == "first-byte" else _far)(replace(setup, home=home))


def _cold(setup: Setup) -> Outcome:
    write_clip(setup.home / "files" / "clip1.mp4", MIB)
    count = setup.options.first_bytes
    turns = [
        [f"clip1-{turn}x{number}" for number in range(count)]
        for turn in range(setup.options.rounds + 1)
    ]
    with running(setup.home, setup.cores, [clip for some in turns for clip in some]) as field:
        asked = {DIRECT: field.upstream, **field.servers}
        rounds = [
            in_turn(asked, some, lambda server, clip: Ask(server.path(clip))) for some in turns
        ][1:]
        return Outcome(
            "first-byte",
            "time to first byte of cold 1 MiB clips, one at a time, connections kept",
            rounds,
            [
                *added(rounds, OURS, _P50, _P99),
                *(one for name in field.servers if name != OURS for one in added(rounds, name)),
            ],
            list(field.absent),
        )


def _far(setup: Setup) -> Outcome:
    write_sparse_clip(setup.home / "files" / "clip500.mp4", _FAR_LENGTH)
    clips = [f"{_FAR_KIND}-{turn}" for turn in range(setup.options.rounds)]
    with running(setup.home, setup.cores, clips) as field:
        slices = replace(field.nginx, prefix=SLICED)
        asked = {DIRECT: field.upstream, _SLICE: slices, **field.servers}
        rounds = []
        for clip in clips:
            rounds.append(in_turn(asked, [clip], _ask_far, _settled))
            wait_quiet(field.ours)
        first_byte = "time to first byte"
        others = [name for name in field.servers if name not in {OURS, PEER}]
        return Outcome(
            "far-seek",
            "64 KiB at 90 % of a cold clip, 500 MB at 100 MiB a second from upstream",
            rounds,
            [
                ratios(rounds, _p50, first_byte, mark=Mark(1.0, at_least=False), peer=_SLICE),
                *(ratios(rounds, _p50, first_byte, peer=name) for name in (PEER, *others, DIRECT)),
            ],
            list(field.absent),
        )


def _ask_far(server: Server, clip: str) -> Ask:
    return Ask(server.path(clip), _FAR)


def _p50(sample: Sample) -> float:
    return sample.p50


def _a_moment(_: Server) -> None:
    time.sleep(_PAUSE)


def _settled(server: Server) -> None:
    """Wait until a server has nothing more to do, or nobody would know whose time is measured."""
    deadline = time.monotonic() + _LONGEST
    spent = server.cpu()
    while time.monotonic() < deadline:
        time.sleep(_FAR_PAUSE)
        before, spent = spent, server.cpu()
        if spent - before < _IDLE:
            return


def in_turn(
    servers: dict[str, Server],
    clips: Sequence[str],
    ask: Callable[[Server, str], Ask],
    settled: Callable[[Server], None] = _a_moment,
) -> Round:
    """Each clip once from everybody, one after the other; latencies are of the first byte.

    With each clip another one begins. After each reply `settled` waits for its server.
    """
    names = list(servers)
    seen: dict[str, list[Seen]] = {name: [] for name in names}
    lines = {name: Viewer(server.port) for name, server in servers.items()}
    try:
        for number, clip in enumerate(clips):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                seen[name].append(lines[name].see(ask(servers[name], clip)))
                settled(servers[name])
    finally:
        for line in lines.values():
            line.socket.close()
    return {name: _sample(found) for name, found in seen.items()}


def _sample(seen: list[Seen]) -> Sample:
    return Sample(
        requests=len(seen),
        seconds=sum(one.last_byte for one in seen),
        received=sum(one.received for one in seen),
        p50=percentile((one.first_byte for one in seen), 0.5),
        p99=percentile((one.first_byte for one in seen), 0.99),
        errors=sum(not one.whole for one in seen),
    )


def added(
    rounds: Sequence[Round], server: str, p50: Mark | None = None, p99: Mark | None = None
) -> list[Finding]:
    """Milliseconds that a server adds to asking directly, at the middle and at the slow end."""
    return [
        Finding(f"{server}, added to the first byte, {name}", values, "ms", mark)
        for name, mark, values in (
            ("p50", p50, tuple((one[server].p50 - one[DIRECT].p50) * 1e3 for one in rounds)),
            ("p99", p99, tuple((one[server].p99 - one[DIRECT].p99) * 1e3 for one in rounds)),
        )
    ]
