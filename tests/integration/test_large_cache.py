"""A disk that has filled for years: served at once after a restart, and known soon afterwards.

By default with 20,000 clips, whose figures are only said. `make scale` takes a million and holds
them to what is promised; run it on a machine that does nothing else, with that many inodes free.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import pytest

from proxy.records import ClipFacts
from proxy.storage import keys
from proxy.storage.trailer import write_trailer
from tests.fakes.fal import make_clip
from tests.fixtures.origin import wait_for
from tests.fixtures.serving import Serving, serving

AT_SCALE = "SCALE_ROWS" in os.environ
CLIPS = int(os.environ.get("SCALE_ROWS", "20000"))
REAL = 50
"""Clips with bytes; the others are holes, as nobody asks for them."""
SIZE = 64 * 1024
SOONEST = 5.0 if AT_SCALE else math.inf
"""Seconds from the process's start to its first hit."""
GROWTH = 60 * 2**20 if AT_SCALE else math.inf
"""Bytes that the process may gain with a full cache, over one with `REAL` clips."""
PART = 0.95 if AT_SCALE else 0.0
"""Of the hits per second of CPU time with `REAL` clips, what is left with a full cache."""
LATE = 0.05 if AT_SCALE else math.inf
"""Seconds that a hit may take while the cache is being looked through: the 99th percentile."""
ROUNDS, HITS = (10, 1000) if AT_SCALE else (1, 100)
DATA = make_clip(SIZE, 95)

pytestmark = [pytest.mark.timeout(1200 if AT_SCALE else 240), pytest.mark.blocking]


def say(line: str) -> None:
    print(f"  {line}", flush=True)


def fill(data_dir: Path, count: int) -> None:
    """Put clips into the cache as a process would have left them, and holes of other ids."""
    root = keys.cache_dir(data_dir)
    for number in range(keys.CACHE_FOLDERS):
        (root / keys.cache_folder(number)).mkdir(parents=True)
    for number in range(REAL):
        request_id = f"clip-{number}"
        facts = ClipFacts(
            request_id=request_id,
            length=SIZE,
            etag="e" * 32,
            last_modified=datetime(2026, 10, 21, 7, 28, tzinfo=UTC),
        )
        path = root / keys.cached_name(keys.clip_hash(request_id))
        path.write_bytes(DATA)
        with path.open("r+b") as file:
            write_trailer(file.fileno(), facts, hashlib.sha256(DATA).hexdigest())
    for number in range(count - REAL):
        name = hashlib.sha256(b"%d" % number).digest()[:8]
        path = root / keys.cached_name(int.from_bytes(name))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.ftruncate(fd, 2048)
        os.close(fd)
    os.sync()  # or the catalog's first sync would wait for all of these


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path)  # or pytest would keep a million files for three runs


@dataclass
class Seen:
    """What one start was like. Times are seconds, memory is bytes."""

    served_after: float = math.nan
    known_after: float = math.nan
    meanwhile: list[float] = field(default_factory=list)
    """How long hits took, while the cache was being looked through."""
    cpu_per_hit: float = math.inf
    """Of the best round: others use the machine as well."""
    memory: int = 0


async def start(data_dir: Path, count: int) -> Seen:
    """Start on that cache, and ask for clips until all is known and for a while afterwards."""
    fill(data_dir, count)
    seen, began = Seen(), time.monotonic()
    async with serving(data_dir, worker="false") as server:

        async def hit(number: int) -> float:
            asked = time.monotonic()
            async with server.client.get(server.url(f"clip-{number % REAL}")) as reply:
                assert await reply.read() == DATA
                assert reply.headers["Cache-Status"] == "firstview; hit; detail=disk"
            return time.monotonic() - asked

        await hit(0)
        seen.served_after, number = time.monotonic() - began, 0
        for number in range(REAL):
            await hit(number)
        while not known(server):
            seen.meanwhile.append(await hit(number))
            number += 1
        seen.known_after = time.monotonic() - began
        assert await server.metric("firstview_cached_clips") == count
        await asyncio.sleep(0.5)
        for _ in range(ROUNDS):
            before = cpu(server)
            for number in range(HITS):
                await hit(number)
            seen.cpu_per_hit = min(seen.cpu_per_hit, (cpu(server) - before) / HITS)
        seen.memory = server.memory()
    return seen


def known(server: Serving) -> bool:
    return any(line.get("event") == "looked through the disk cache" for line in server.log)


def cpu(server: Serving) -> float:
    """Seconds of CPU time that the thread of the event loop has used."""
    pid = server.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


async def test_a_full_cache_is_served_at_once_and_costs_neither_time_nor_memory(
    folder: Path,
) -> None:
    few = await start(folder / "few", REAL) if AT_SCALE else Seen()
    many = await start(folder / "many", CLIPS)
    say(f"{CLIPS:,} clips: first hit {many.served_after:.2f} s after the start")
    say(f"all known after {many.known_after:.2f} s, {len(many.meanwhile)} hits meanwhile:")
    late = sorted(many.meanwhile or [0.0])
    p99 = late[int(len(late) * 0.99)]
    say(f"p50 {median(late) * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, slowest {late[-1]:.3f} s")
    if AT_SCALE:
        say(f"memory {few.memory / 2**20:.0f} → {many.memory / 2**20:.0f} MiB")
        say(f"CPU {few.cpu_per_hit * 1e6:.0f} → {many.cpu_per_hit * 1e6:.0f} µs a hit")
        assert many.memory - few.memory < GROWTH
        assert few.cpu_per_hit / many.cpu_per_hit > PART
    assert many.served_after < SOONEST
    assert p99 < LATE


async def test_a_full_cache_is_full(folder: Path) -> None:
    """What was found is what is evicted: a new clip has room, in the place of old ones."""
    data_dir = folder / "data"
    fill(data_dir, 2000)
    async with serving(data_dir, worker="false", cache_max_bytes="3MiB") as server:

        async def made_to_fit() -> bool:
            used = await server.metric("firstview_disk_used_bytes")
            return used <= 3 * 2**20 and await server.metric("firstview_evictions_total") > 0

        await wait_for(made_to_fit, 60)
