"""`firstview serve`: run the origin until it is told to stop.

Belongs here: signals, and what is printed at the start. Must not know: how anything is served.
"""

from __future__ import annotations

import asyncio
import signal

import structlog
import uvloop

from proxy.app import App
from proxy.settings import Settings
from proxy.storage import keys
from proxy.telemetry.log import configure

log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let replies and fills finish. Raises FirstviewError."""
    configure(settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with App(settings).running() as app:
        log.info(
            "serving",
            public=f"{settings.listen_address[0]}:{app.public_port}",
            admin=f"{settings.admin_address[0]}:{app.admin_port}",
            bucket=keys.bucket_url(settings.bucket_url, settings.data_dir),
        )
        if settings.upstream_allow_insecure:
            log.warning("FIRSTVIEW_UPSTREAM_ALLOW_INSECURE is on: http and private addresses too")
        await stop.wait()
        log.info("stopping", drain_timeout=settings.drain_timeout)
