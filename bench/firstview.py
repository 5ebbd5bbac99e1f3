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
from pathlib import Path

from bench.processes import free_port, started
from bench.server import Server
from proxy.catalog.engine import open_catalog
from proxy.catalog.generations import Generations
from proxy.records import Registration
from proxy.storage import keys

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
        **given,
    }
    log = home / "output.log"
    with started([str(_PROGRAM), "serve"], cores, log, (port, admin), environment) as pid:
        yield Server(name, port, pid, admin)


def database(data_dir: Path, settings: dict[str, str]) -> str:
    """Address of its catalog."""
    return keys.database_url(settings.get("FIRSTVIEW_DATABASE_URL", ""), data_dir)


async def _register(address: str, base: str, clips: list[str]) -> None:
    catalog = await open_catalog(address, migrate=True)
    try:
        rows = Generations(catalog, clip_url=keys.clip_path)
        await rows.register(
            [Registration(request_id=clip, fal_url=f"{base}/{clip}.mp4") for clip in clips]
        )
    finally:
        await catalog.close()
