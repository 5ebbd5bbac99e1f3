"""Hits: one warm clip in ranges and whole, and ten thousand clips by a Zipf distribution.

Belongs here: what is asked for, by how many, and in which order. Must not know: how servers are
started.

Small replies are asked for by wrk. From 256 KiB up it would copy bytes for most of its time, so
viewers of this process's own take its place, who drop them in the kernel.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench import asks
from bench.clips import write_clip
from bench.plan import Setup
from bench.results import MIB, OURS, Mark, Outcome, Round, Sample, against_all, ratio
from bench.server import Server
from bench.servers import Field, running
from bench.turns import all_of, for_a_while
from bench.wrk import load

CLIP = "clip15-warm"
LENGTH = 15 * MIB
_KIB = 1024
_FROM_HERE_OWN_VIEWERS = 256 * _KIB
_BUSY = 0.9
_ZIPF_SIZES = {64: 8, 128: 6, 256: 4, 512: 2, 1024: 1}
"""KiB of a clip, and how many of 21 clips have them: 207 KiB on average."""
_ZIPF_ASKS = 65_536
_LIMIT = 300.0
_OPEN_FILES = 12_000
"""As many as nginx may keep open."""


@dataclass(frozen=True, slots=True)
class _Hit:
    title: str
    block: int
    """Size of a range; 0: the whole clip; -1: many clips, each whole."""
    connections: int
    mark: Mark | None


_EVEN = Mark(1.0, at_least=True)
HITS = {
    "range-1k": _Hit("hits, 1 KiB ranges", _KIB, 16, Mark(0.6, at_least=True)),
    "range-64k": _Hit("hits, 64 KiB ranges", 64 * _KIB, 16, _EVEN),
    "range-64k-256": _Hit("hits, 64 KiB ranges", 64 * _KIB, 256, _EVEN),
    "range-64k-2000": _Hit("hits, 64 KiB ranges", 64 * _KIB, 2000, _EVEN),
    "range-256k": _Hit("hits, 256 KiB ranges", 256 * _KIB, 16, _EVEN),
    "range-1m": _Hit("hits, 1 MiB ranges", MIB, 16, _EVEN),
    "whole": _Hit("hits, a 15 MiB clip, whole", 0, 16, _EVEN),
    "zipf": _Hit("hits, {clips:,} clips by Zipf, 64 KiB to 1 MiB", -1, 64, _EVEN),
}
NAMES = tuple(HITS)


def run(names: Sequence[str], setup: Setup) -> Iterator[Outcome]:
    """Let everybody have the clips, then serve them in turn."""
    files = setup.home / "files"
    files.mkdir()
    write_clip(files / "clip15.mp4", LENGTH)
    for size in _ZIPF_SIZES:
        write_clip(files / f"zipf{size}.mp4", size * _KIB)
    many = zipf_ids(setup.options.zipf_clips if "zipf" in names else 0)
    settings = {"FIRSTVIEW_OPEN_FILES": str(_OPEN_FILES)}
    with running(setup.home, setup.cores, [CLIP, *many], settings=settings) as field:
        notes = warm_up(field, [CLIP]) + (warm_up(field, many) if many else [])
        for name in names:
            outcome = _measure(name, field, many, setup)
            outcome.notes += notes if name == "zipf" else []
            yield outcome


def zipf_ids(count: int) -> list[str]:
    """Ids of clips, most asked for first; what is asked for most is neither small nor large."""
    sizes = list(_ZIPF_SIZES)
    chosen = random.Random(7).choices(sizes, weights=list(_ZIPF_SIZES.values()), k=count)
    return [f"zipf{size}-{rank}" for rank, size in enumerate(chosen)]


def warm_up(field: Field, clips: Sequence[str]) -> list[str]:
    """Make the clips hits everywhere; notes of who did not keep what it fetched.

    Raises RuntimeError where that is firstview, or where a reply is wrong.
    """
    notes = []
    field.asked()
    for server in field.servers.values():
        wanted = asks.whole(server.path(clip) for clip in clips)
        for _ in range(2):
            sample, seen = all_of(server, wanted, connections=16)
            if sample.errors:
                wrong = next(one for one in seen if not one.whole)
                raise RuntimeError(f"{server.name}: {wrong}")
        if server.admin_port:
            wait_quiet(server)
        if (asked := field.asked(len(clips))) != len(clips):
            notes.append(f"{server.name} asked upstream {asked} times for {len(clips)} clips")
            if server.name.startswith(OURS):
                raise RuntimeError(notes[-1])
    return notes


def wait_quiet(server: Server) -> None:
    """Until firstview has no fill left. Raises RuntimeError after some minutes."""
    deadline = time.monotonic() + _LIMIT
    while server.metric("firstview_fills_in_flight"):
        if time.monotonic() > deadline:
            raise RuntimeError("fills do not end")
        time.sleep(0.1)


def _measure(name: str, field: Field, many: list[str], setup: Setup) -> Outcome:
    hit, options = HITS[name], setup.options

    def turn(server: Server, number: int) -> Sample:
        seconds = options.seconds if number else 1
        if hit.block < 0:
            wanted = asks.by_rank([server.path(clip) for clip in many], _ZIPF_ASKS, number)
        else:
            wanted = asks.blocks(server.path(CLIP), LENGTH, hit.block, number)
        if hit.block == 0 or hit.block >= _FROM_HERE_OWN_VIEWERS:
            return for_a_while(server, wanted, connections=hit.connections, seconds=seconds)
        return load(
            server,
            wanted,
            seconds=seconds,
            connections=hit.connections,
            cores=setup.cores,
            home=setup.home,
            body=max(0, hit.block),
        )

    field.asked()
    rounds = field.play(options.rounds, turn)
    title = f"{hit.title.format(clips=len(many))}, {hit.connections} connections"
    outcome = Outcome(name, title, rounds, against_all(rounds, hit.mark), list(field.absent))
    if asked := field.asked():
        outcome.notes.append(f"the upstream was asked {asked} times during hits")
    outcome.notes += who_was_the_limit(rounds)
    return outcome


def who_was_the_limit(rounds: Sequence[Round]) -> list[str]:
    """A note where it was the load that had no core left, and not firstview."""
    ours = [each[OURS] for each in rounds]
    busy = sum(one.load_share > _BUSY > one.cpu_share for one in ours)
    if busy <= len(ours) / 2:
        return []
    share = ratio(sum(one.cpu_share for one in ours), len(ours))
    return [f"the load had no core left, firstview used {share:.2f} of its own: see CPU a request"]
