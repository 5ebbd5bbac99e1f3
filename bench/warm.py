"""Scenarios 1 to 3: a warm clip, whole and in ranges, under wrk.

Belongs here: what is asked for, and in which order. Must not know: how servers are started.
"""

from __future__ import annotations

from bench.machine import Cores
from bench.plan import Options
from bench.results import MIB, Mark, Outcome, Round, Sample
from bench.servers import Pair, Server
from bench.viewers import watch
from bench.wrk import load

CLIP = "clip15-warm"
LENGTH = 15 * MIB
CONNECTIONS = 16
_MARK = Mark(0.9, at_least=True)

BLOCKS: dict[str, tuple[str, int, Mark | None]] = {
    "whole": ("warm 15 MiB clip, whole", 0, _MARK),
    "range-1m": ("warm 1 MiB ranges", MIB, _MARK),
    "range-64k": ("warm 64 KiB ranges", 64 * 1024, None),
    "range-1k": ("warm 1 KiB ranges", 1024, None),
}
"""Title, size of a range (0: the whole clip) and mark of each scenario."""


def warm_up(pair: Pair, path: str) -> None:
    """Make the clip a hit at both, and make sure of it. Raises RuntimeError."""
    for server in (pair.nginx, pair.firstview):
        for _ in range(3):
            [seen] = watch(server.port, [path], connections=1, seconds=30)
            if not seen.whole:
                raise RuntimeError(f"{server.name} answered {seen.status}, {seen.received} bytes")
    asked = pair.asked()
    if asked != 2:
        raise RuntimeError(f"the upstream was asked {asked} times for one clip by two servers")


def measure(name: str, pair: Pair, options: Options, cores: Cores) -> Outcome:
    """Let both serve the clip in turn, so many rounds; one short unmeasured turn comes first."""
    title, block, mark = BLOCKS[name]
    path = f"/videos/{CLIP}.mp4"

    def turn(server: Server, seconds: int, seed: int) -> Sample:
        return load(
            server,
            path,
            length=LENGTH,
            block=block,
            seconds=seconds,
            connections=CONNECTIONS,
            seed=seed,
            cores=cores,
        )

    turn(pair.nginx, 1, 0)
    turn(pair.firstview, 1, 0)
    rounds = [
        Round(turn(pair.nginx, options.seconds, seed), turn(pair.firstview, options.seconds, seed))
        for seed in range(1, options.rounds + 1)
    ]
    outcome = Outcome(name, f"{title}, {CONNECTIONS} connections", mark, rounds)
    if asked := pair.asked():
        outcome.notes.append(f"the upstream was asked {asked} times during hits")
    return outcome
