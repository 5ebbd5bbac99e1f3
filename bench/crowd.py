"""A crowd on one cold clip, beside one viewer of another.

Belongs here: who asks, and how long it takes. Must not know: how servers are started.

Upstream sends at a pace, as a real one does: what is measured is whether a thousand viewers of it
have to wait longer than one. Two processes serve, on all cores, which the load shares.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from bench.asks import whole
from bench.clips import write_clip
from bench.machine import running_on
from bench.plan import Setup
from bench.results import MIB, OURS, Finding, Mark, Outcome, Round, Sample
from bench.server import Server
from bench.servers import Field, running
from bench.turns import all_of

NAMES = ("crowd",)
LENGTH = 4 * MIB
_KIND = "clip4_1m"
"""1 MiB a second."""
_WORKERS = 2


def run(_: Sequence[str], setup: Setup) -> Iterator[Outcome]:
    """Everyone asks for one cold clip at the same moment."""
    (setup.home / "files").mkdir()
    write_clip(setup.home / "files" / "clip4.mp4", LENGTH)
    turns = range(1, setup.options.rounds + 1)
    clips = [f"{_KIND}-{who}{turn}" for turn in turns for who in ("one", "all")]
    cores = setup.cores.everyone
    with (
        running_on(cores.load),
        running(setup.home, cores, clips, workers=_WORKERS) as field,
    ):
        yield _measure(field, setup)


def _measure(field: Field, setup: Setup) -> Outcome:
    viewers = setup.options.crowd
    rounds = field.play(
        setup.options.rounds,
        lambda server, number: _turn(field, server, number, viewers),
        warm_up=False,
    )
    findings = [
        _finding(rounds, OURS, "upstream_gets", "upstream GETs", Mark(1, at_least=False)),
        _finding(rounds, OURS, "times_of_one", _TIMES, Mark(1.2, at_least=False)),
    ]
    for name in field.servers:
        if name != OURS:
            findings.append(_finding(rounds, name, "upstream_gets", "upstream GETs"))
            findings.append(_finding(rounds, name, "times_of_one", _TIMES))
    title = (
        f"{viewers:,} viewers of one cold clip, 4 MiB at 1 MiB a second from upstream; "
        f"{_WORKERS} workers on {setup.cores.everyone.note}"
    )
    return Outcome("crowd", title, rounds, findings, list(field.absent))


_TIMES = "all viewers' time / one viewer's"


def _finding(
    rounds: Sequence[Round],
    server: str,
    key: str,
    name: str,
    mark: Mark | None = None,
) -> Finding:
    values = tuple(each[server].more[key] for each in rounds)
    return Finding(f"{server}, {name}", values, mark=mark)


def _turn(field: Field, server: Server, number: int, viewers: int) -> Sample:
    os.sync()
    alone, _ = all_of(server, whole([server.path(f"{_KIND}-one{number}")]), connections=1)
    field.asked(1)
    path = server.path(f"{_KIND}-all{number}")
    sample, seen = all_of(server, whole([path] * viewers), connections=viewers)
    sample.more["upstream_gets"] = float(field.asked(1))
    sample.more["one_viewer_seconds"] = alone.seconds
    sample.more["times_of_one"] = sample.seconds / alone.seconds
    sample.more["first_byte_max_ms"] = max(one.first_byte for one in seen) * 1e3
    return sample
