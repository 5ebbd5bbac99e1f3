"""firstview as it is run in production, started for a measurement.

Belongs here: its settings, its catalog's rows, its process. Must not know: scenarios, peers.

uvloop, a directory for a bucket and SQLite, unless a scenario's settings say otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.processes import free_port, started
from bench.server import Server
from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.records import ClipFacts, Registration
from proxy.storage import keys
from proxy.storage.trailer import write_trailer

_PROGRAM = Path(sys.executable).with_name("firstview")


@contextlib.contextmanager
def origin(
    home: Path,
    upstream: int,
    cores: frozenset[int],
    *,
    clips: Iterable[str] = (),
    settings: dict[str, str] | None = None,
    name: str = "firstview",
) -> Iterator[Server]:
    """Run one; its catalog knows these clips, and where upstream has them."""
    given = settings or {}
    home.mkdir(exist_ok=True)
    base = f"http://127.0.0.1:{upstream}/files"
    asyncio.run(_register(database(home, given), base, list(clips)))
    port, admin = free_port(), free_port()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("FIRSTVIEW_")
    } | {
        "FIRSTVIEW_DATA_DIR": str(home),
        "FIRSTVIEW_LISTEN": f"127.0.0.1:{port}",
        "FIRSTVIEW_ADMIN_LISTEN": f"127.0.0.1:{admin}",
        "FIRSTVIEW_UPSTREAM_HOSTS": "127.0.0.1",
        "FIRSTVIEW_UPSTREAM_ALLOW_INSECURE": "true",
        "FIRSTVIEW_ACCESS_LOG": "off",  # nobody else writes one
        **given,
    }
    log = home / "output.log"
    with started([str(_PROGRAM), "serve"], cores, log, (port, admin), environment) as pid:
        yield Server(name, port, pid, admin)


def database(data_dir: Path, settings: dict[str, str]) -> str:
    """Address of its catalog."""
    return keys.database_url(settings.get("FIRSTVIEW_DATABASE_URL", ""), data_dir)


def cache_clips(data_dir: Path, clips: Iterable[str], length: int) -> None:
    """Have so many bytes of each clip in a disk cache, as if it had been filled from a bucket."""
    root, said = keys.cache_dir(data_dir), datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(keys.CACHE_FOLDERS):
        (root / keys.cache_folder(number)).mkdir(parents=True)
    for clip in clips:
        path = root / keys.cached_name(keys.clip_hash(clip))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            facts = ClipFacts(
                request_id=clip, length=length, etag=keys.short_hash(clip), last_modified=said
            )
            write_trailer(fd, facts, "")  # nobody looks at it before the machine starts again
        finally:
            os.close(fd)


async def _register(address: str, base: str, clips: list[str]) -> None:
    catalog = await open_catalog(address, migrate=True)
    try:
        rows = Generations(catalog, clip_url=keys.clip_path)
        await rows.register(
            [Registration(request_id=clip, fal_url=f"{base}/{clip}.mp4") for clip in clips]
        )
    finally:
        await catalog.close()
