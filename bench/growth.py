"""Growth: the same questions with ten thousand clips in the disk cache, and with a million.

Belongs here: filling two caches, and comparing whoever serves from them. Must not know: how
servers are started, how a cached file is laid out.

Both are asked for the same ten thousand clips, by Zipf: what is measured is what the others that
lie there cost. A cached clip takes one block of the disk. The bucket is an address where nobody
answers: a clip that is cached asks nobody.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from bench import asks, firstview, nginx
from bench.firstview import cache_clips
from bench.plan import Setup
from bench.processes import free_port
from bench.results import MIB, Finding, Mark, Outcome, Sample, ratios
from bench.server import Server
from bench.servers import Field
from bench.wrk import load

NAMES = ("growth",)
_FEW = 10_000
_LENGTH = 3 * 1024
_ASKS = 65_536
_CONNECTIONS = 64
_START = Mark(5.0, at_least=False)
_SPEED = Mark(0.95, at_least=True)
_MEMORY = Mark(150.0, at_least=False)
_LIMIT = 120.0


def run(_: Sequence[str], setup: Setup) -> Iterator[Outcome]:
    """Let both serve the same clips in turn."""
    home, cores, most = setup.home, setup.cores, setup.options.growth_clips
    few = min(_FEW, most)
    (home / "files").mkdir()
    settings = {
        "FIRSTVIEW_BUCKET_URL": "s3://nobody",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nobody",
        "AWS_REGION": "auto",
        "FIRSTVIEW_WORKER": "false",
        "FIRSTVIEW_CACHE_MAX_BYTES": "64GiB",
    }
    servers, starts, looks = {}, [], []
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(
            nginx.upstream(home / "upstream", home / "files", cores.upstream)
        )
        for count in (few, most):
            name, place = f"firstview, {count:,} clips", home / str(count)
            cache_clips(place, (_clip(number) for number in range(count)), _LENGTH)
            began = time.perf_counter()
            server = stack.enter_context(
                firstview.origin(place, upstream.port, cores.server, settings=settings, name=name)
            )
            starts.append(time.perf_counter() - began)
            _wait_counted(server, count)
            looks.append(time.perf_counter() - began)
            servers[name] = server
        yield _measure(Field(servers, upstream, home), few, setup, starts, looks)


def _measure(
    field: Field, few: int, setup: Setup, starts: list[float], looks: list[float]
) -> Outcome:
    options = setup.options

    def turn(server: Server, number: int) -> Sample:
        paths = [server.path(_clip(rank)) for rank in range(few)]
        return load(
            server,
            asks.by_rank(paths, _ASKS, number),
            seconds=options.seconds if number else 1,
            connections=_CONNECTIONS,
            cores=setup.cores,
            home=setup.home,
            body=_LENGTH,
        )

    rounds = field.play(options.rounds, turn)
    small, large = field.servers
    more = tuple((each[large].resident - each[small].resident) / MIB for each in rounds)
    findings = [
        ratios(
            rounds,
            lambda one: one.per_second,
            "requests a second",
            mark=_SPEED,
            ours=large,
            peer=small,
        ),
        Finding("memory that the larger cache takes", more, "MiB", _MEMORY),
        Finding("until the larger one's first answer", (starts[-1],), "s", _START),
        Finding("until all of its files have been looked through", (looks[-1],), "s"),
    ]
    title = f"the same {few:,} clips of 3 KiB by Zipf, among more and more that are cached"
    return Outcome("growth", title, rounds, findings)


def _clip(number: int) -> str:
    return f"cached-{number:07d}"


def _wait_counted(server: Server, count: int) -> None:
    deadline = time.monotonic() + _LIMIT
    while server.metric("firstview_cached_clips") < count:
        if time.monotonic() > deadline:
            found = server.metric("firstview_cached_clips")
            raise RuntimeError(f"{found:.0f} of {count} cached clips were found in {_LIMIT} s")
        time.sleep(0.2)
