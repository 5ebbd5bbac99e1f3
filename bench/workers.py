"""Two workers beside one: what a request and a gigabyte cost, and how many more there are.

Belongs here: two origins, one upstream, their turns. Must not know: how servers are started.

Everybody has all cores, the load included. With two of them a second worker has no core of its
own, so that throughput says little there; what a request costs does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from bench import asks, firstview, nginx
from bench.clips import write_clip
from bench.hits import CLIP, LENGTH, warm_up
from bench.machine import running_on
from bench.plan import Setup
from bench.results import MIB, Mark, Outcome, Sample, ratios
from bench.server import Server
from bench.servers import Field
from bench.turns import for_a_while
from bench.wrk import load

NAMES = ("workers",)
_ONE, _TWO = "firstview, 1 worker", "firstview, 2 workers"
_BLOCKS = {"64 KiB": 64 * 1024, "1 MiB": MIB}
_CONNECTIONS = 64
_SAME = Mark(1.05, at_least=False)
_MORE = Mark(1.7, at_least=True)
_CORES_TO_SEE_IT = 4


def run(_: Sequence[str], setup: Setup) -> Iterator[Outcome]:
    """Let both serve the same clip in turn."""
    home, cores = setup.home, setup.cores.everyone
    (home / "files").mkdir()
    write_clip(home / "files" / "clip15.mp4", LENGTH)
    with contextlib.ExitStack() as stack:
        stack.enter_context(running_on(cores.load))
        upstream = stack.enter_context(
            nginx.upstream(home / "upstream", home / "files", cores.upstream)
        )
        servers = {
            name: stack.enter_context(
                firstview.origin(
                    home / f"with{count}",
                    upstream.port,
                    cores.server,
                    clips=[CLIP],
                    settings={"FIRSTVIEW_WORKERS": str(count)},
                    name=name,
                )
            )
            for name, count in ((_ONE, 1), (_TWO, 2))
        }
        field = Field(servers, upstream, home)
        warm_up(field, [CLIP])
        for title, block in _BLOCKS.items():
            yield _measure(title, block, field, setup)


def _measure(title: str, block: int, field: Field, setup: Setup) -> Outcome:
    cores, options = setup.cores.everyone, setup.options

    def turn(server: Server, number: int) -> Sample:
        wanted = asks.blocks(server.path(CLIP), LENGTH, block, number)
        seconds = options.seconds if number else 1
        if block == MIB:
            return for_a_while(server, wanted, connections=_CONNECTIONS, seconds=seconds)
        return load(
            server,
            wanted,
            seconds=seconds,
            connections=_CONNECTIONS,
            cores=cores,
            home=setup.home,
            body=block,
        )

    rounds = field.play(options.rounds, turn)
    enough = len(cores.server) >= _CORES_TO_SEE_IT
    findings = [
        ratios(
            rounds,
            lambda one: one.cpu_per_thousand,
            "CPU a request",
            mark=_SAME,
            ours=_TWO,
            peer=_ONE,
        ),
        ratios(
            rounds,
            lambda one: one.cpu_per_gigabyte,
            "CPU a gigabyte",
            mark=_SAME,
            ours=_TWO,
            peer=_ONE,
        ),
        ratios(
            rounds,
            lambda one: one.per_second,
            "requests a second",
            mark=_MORE if enough else None,
            ours=_TWO,
            peer=_ONE,
        ),
    ]
    outcome = Outcome(
        f"workers-{title.lower().replace(' ', '')}",
        f"hits, {title} ranges, {_CONNECTIONS} connections; {cores.note}",
        rounds,
        findings,
    )
    if not enough:
        outcome.notes.append(
            "two workers and the load do not fit on these cores: no mark for speed"
        )
    return outcome
