"""One turn of one server under viewers of this process's own, as a sample.

Belongs here: time, CPU and memory around a turn. Must not know: which scenario it is.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

from bench.asks import Ask
from bench.results import Sample, percentile
from bench.server import Server
from bench.viewers import Seen, drain, viewers, watch

_LIMIT = 120.0


def all_of(server: Server, asks: Sequence[Ask], *, connections: int) -> tuple[Sample, list[Seen]]:
    """Everything once, until the last viewer has all its bytes."""
    return _measured(
        server, lambda: watch(server.port, asks, connections=connections, seconds=_LIMIT)
    )


def for_a_while(server: Server, asks: Sequence[Ask], *, connections: int, seconds: float) -> Sample:
    """Round and round, for so long; who is in the middle of a reply at the end is left out."""
    endless = itertools.cycle(asks)

    def turn() -> list[Seen]:
        with viewers(server.port, connections) as crowd:
            done, _ = drain(crowd, endless, seconds=seconds)
        return done

    return _measured(server, turn)[0]


def _measured(server: Server, turn: Callable[[], list[Seen]]) -> tuple[Sample, list[Seen]]:
    cpu, own, began = server.cpu(), time.process_time(), time.perf_counter()
    seen = turn()
    took = time.perf_counter() - began
    sample = Sample(
        requests=len(seen),
        seconds=took,
        received=sum(one.received for one in seen),
        p50=percentile((one.last_byte for one in seen), 0.5) if seen else 0.0,
        p99=percentile((one.last_byte for one in seen), 0.99) if seen else 0.0,
        errors=sum(not one.whole for one in seen),
        cpu_seconds=server.cpu() - cpu,
        load_cpu_seconds=time.process_time() - own,
        resident=server.resident(),
    )
    return sample, seen
