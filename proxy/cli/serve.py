"""`firstview serve`: run the origin until it is told to stop.

Belongs here: what is said at the start and at the end, and whether there is one process or a
supervisor with several. Must not know: how anything is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import Final

import structlog

from proxy.cli.running import Stop, until_stopped
from proxy.clock import Clock
from proxy.settings import MOST_WORKERS, Settings
from proxy.storage import keys
from proxy.telemetry.log import configure

# ruff: noqa: PLC0415 - a supervisor has no use for the application, one process none for it

WORKER: Final = (sys.executable, "-P", "-m", "proxy.cli.spawned")
"""What starts a worker; -P, because the working directory is nobody's place for code."""

log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let replies and fills finish. Raises FirstviewError."""
    configure(settings.log_level, settings.log_format)
    cores = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    workers = cores if settings.workers == "auto" else settings.workers
    if workers == 1:
        until_stopped(lambda stop: _serve(settings, stop))
    else:
        until_stopped(lambda stop: _supervise(settings, workers, stop))


async def _serve(settings: Settings, stop: Stop) -> None:
    from proxy.app import App

    # One process, as `auto` makes it on one core, must not die of what replaces several.
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGHUP, log.warning, "one process cannot be replaced: restart it"
    )
    async with App(settings).running() as app:
        _say_serving(settings, 1, app.public_port, app.admin_port)
        await stop.wait()
        log.info("stopping", drain_timeout=settings.drain_timeout)


async def _supervise(settings: Settings, workers: int, stop: Stop) -> None:
    from proxy.supervisor.sockets import open_sockets
    from proxy.supervisor.supervisor import Supervisor

    with contextlib.closing(open_sockets(settings, workers)) as sockets:
        supervisor = Supervisor(settings, sockets, WORKER, Clock())
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, supervisor.reload)
        await supervisor.run(
            stop,
            lambda: _say_serving(settings, workers, sockets.public_port, sockets.admin_port),
        )


def _say_serving(settings: Settings, workers: int, public: int, admin: int) -> None:
    log.info(
        "serving",
        public=f"{settings.listen_address[0]}:{public}",
        admin=f"{settings.admin_address[0]}:{admin}",
        bucket=keys.bucket_url(settings.bucket_url, settings.data_dir),
        workers=workers,
    )
    warn_of_insecurity(settings)


def warn_of_insecurity(settings: Settings) -> None:
    """Log what is meant for tests and demos only."""
    if settings.upstream_allow_insecure:
        log.warning("FIRSTVIEW_UPSTREAM_ALLOW_INSECURE is on: http and private addresses too")
