"""What the metrics of hits cost: a firstview that counts them beside one that does not.

Belongs here: two origins, one upstream, their turns. Must not know: how servers are started, what
is counted.

Hits are all that is compared: of anything else the metrics are a part that nobody could measure.
One in a hundred is to be seen where turns differ by ten, so there are very many short ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from bench import asks, firstview, nginx
from bench.clips import write_clip
from bench.hits import CLIP, LENGTH, warm_up
from bench.plan import Setup
from bench.results import OURS, Mark, Outcome, Sample, ratios
from bench.server import Server
from bench.servers import Field
from bench.wrk import load

NAMES = ("metrics",)
_WITHOUT = f"{OURS}, hits not counted"
_BLOCKS = {"1 KiB": 1024, "64 KiB": 64 * 1024}
_CONNECTIONS = 16
_TURNS = 12
"""Turns of a second each in the place of one of the other scenarios."""
_SAME = Mark(0.97, at_least=True)


def run(_: Sequence[str], setup: Setup) -> Iterator[Outcome]:
    """Let both serve the same clip in turn."""
    home, cores = setup.home, setup.cores
    (home / "files").mkdir()
    write_clip(home / "files" / "clip15.mp4", LENGTH)
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(
            nginx.upstream(home / "upstream", home / "files", cores.upstream)
        )
        servers = {
            name: stack.enter_context(
                firstview.origin(
                    home / counted,
                    upstream.port,
                    cores.server,
                    clips=[CLIP],
                    settings={"FIRSTVIEW_HIT_METRICS": counted},
                    name=name,
                )
            )
            for name, counted in ((OURS, "true"), (_WITHOUT, "false"))
        }
        field = Field(servers, upstream, home)
        warm_up(field, [CLIP])
        for title, block in _BLOCKS.items():
            yield _measure(title, block, field, setup)


def _measure(title: str, block: int, field: Field, setup: Setup) -> Outcome:
    def turn(server: Server, number: int) -> Sample:
        return load(
            server,
            asks.blocks(server.path(CLIP), LENGTH, block, number),
            seconds=1,
            connections=_CONNECTIONS,
            cores=setup.cores,
            home=setup.home,
            body=block,
        )

    rounds = field.play(_TURNS * setup.options.rounds, turn)
    findings = [
        ratios(rounds, lambda one: one.per_second, "requests a second", mark=_SAME, peer=_WITHOUT),
        ratios(rounds, lambda one: one.cpu_per_thousand, "CPU a request", peer=_WITHOUT),
    ]
    return Outcome(
        f"metrics-{title.lower().replace(' ', '')}",
        f"hits, {title} ranges, {_CONNECTIONS} connections, with and without their metrics",
        rounds,
        findings,
    )
