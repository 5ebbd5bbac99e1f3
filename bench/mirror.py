"""How many clips a second the worker of one process brings into its bucket.

Belongs here: which clips, how many, and until when. Must not know: how servers are started.

Nobody views anything: jobs are filed for clips that the catalog knows, and the time runs from then
until the last is in the bucket, verified and synced, and the catalog says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator, Sequence

from bench.clips import write_clip
from bench.machine import touch_memory
from bench.plan import Options, Setup
from bench.results import MIB, Finding, Outcome
from bench.server import Server
from bench.servers import Alone, alone
from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.catalog.job_rows import NewJob
from proxy.catalog.jobs import Jobs
from proxy.clock import Clock
from proxy.records import JobKind, Registration
from proxy.storage import keys

NAMES = ("mirror",)
SIZES = {"clip30k": 30 * 1024, "clip1": MIB, "clip15": 15 * MIB}
HANDS = (4, 16)
"""Jobs that are run at once: the default, and many."""
POLL = 0.1
"""Seconds between two looks for jobs; the default, 1 s, would be a good part of each turn."""
_MOST = 200
"""Clips of one turn."""
_TURNS = 3
_LIMIT = 120.0
_DONE = "firstview_jobs_run_total"


def run(_: Sequence[str], setup: Setup) -> Iterator[Outcome]:
    """Each concurrency has a server of its own; they take turns."""
    origins = {}
    with contextlib.ExitStack() as stack:
        for hands in HANDS:
            place = setup.home / str(hands)
            (place / "files").mkdir(parents=True)
            for kind, size in SIZES.items():
                write_clip(place / "files" / f"{kind}.mp4", size)
            settings = {
                "FIRSTVIEW_MIRROR_CONCURRENCY": str(hands),
                "FIRSTVIEW_JOBS_POLL": f"{POLL}s",
            }
            origins[hands] = stack.enter_context(alone(place, setup.cores, settings))
        yield from _measure_all(origins, setup.options)


def _measure_all(origins: dict[int, Alone], options: Options) -> list[Outcome]:
    """Let each concurrency take its turn with clips of each size."""
    return [
        _measure(kind, size, min(_MOST, max(1, options.mirror_mib * MIB // size)), origins)
        for kind, size in SIZES.items()
    ]


def _measure(kind: str, size: int, count: int, origins: dict[int, Alone]) -> Outcome:
    took: dict[int, list[float]] = {hands: [] for hands in origins}
    cpu: dict[int, list[float]] = {hands: [] for hands in origins}
    for turn in range(_TURNS):
        for hands, origin in origins.items():
            os.sync()
            touch_memory(origin.home, min(1024 * MIB, 2 * size * count))
            before = origin.firstview.cpu()
            ids = [f"{kind}-turn{turn}x{number}" for number in range(count)]
            took[hands].append(_mirror(origin, ids))
            cpu[hands].append((origin.firstview.cpu() - before) / count * 1e3)
    outcome = Outcome(f"mirror-{kind}", f"{count} clips of {size / MIB:.2g} MiB, without viewers")
    for hands in origins:
        rates = tuple(count / seconds for seconds in took[hands])
        speeds = tuple(rate * size / MIB for rate in rates)
        outcome.findings += [
            Finding(f"{hands} at once, clips a second", rates),
            Finding(f"{hands} at once, speed", speeds, "MiB/s"),
            Finding(f"{hands} at once, CPU of a clip", tuple(cpu[hands]), "ms"),
        ]
    return outcome


def _mirror(origin: Alone, ids: list[str]) -> float:
    """Seconds until all are stored."""
    done = origin.firstview.metric(_DONE)
    asyncio.run(_file(origin, ids))
    began = time.perf_counter()
    _wait_done(origin.firstview, done + len(ids))
    return time.perf_counter() - began


async def _file(origin: Alone, ids: list[str]) -> None:
    catalog, now = await open_catalog(origin.database), Clock().now()
    try:
        await Generations(catalog, clip_url=keys.clip_path).register(
            [Registration(request_id=name, fal_url=f"{origin.source}/{name}.mp4") for name in ids]
        )
        await Jobs(catalog).file(
            [NewJob(request_id=name, kind=JobKind.MIRROR, created_at=now) for name in ids]
        )
    finally:
        await catalog.close()


def _wait_done(server: Server, count: float) -> None:
    deadline = time.monotonic() + _LIMIT
    while server.metric(_DONE) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"clips were not stored within {_LIMIT} s")
        time.sleep(0.1)
    if server.metric("firstview_stored_total") < count:
        raise RuntimeError("jobs ended without a clip in the bucket")
