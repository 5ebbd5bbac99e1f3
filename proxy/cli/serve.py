"""`firstview serve`: run the origin until it is told to stop.

Belongs here: what is said at the start and at the end, and whether there is one process or a
supervisor with several. Must not know: how anything is served.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Final

import structlog

from proxy.cli import signals
from proxy.cli.running import Stop, until_stopped
from proxy.clock import Clock
from proxy.settings import MOST_WORKERS, Settings
from proxy.storage import keys
from proxy.supervisor.sockets import Sockets, open_sockets
from proxy.telemetry.log import written_aside

# ruff: noqa: PLC0415 - a supervisor has no use for the application, one process none for it

WORKER: Final = (sys.executable, "-P", "-m", "proxy.cli.spawned")
"""What starts a worker; -P, because the working directory is nobody's place for code."""

log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then let replies and fills finish; returns the exit code.

    Raises FirstviewError.
    """
    with written_aside(settings):
        return _run(settings)


def _run(settings: Settings) -> int:
    cores = min(len(os.sched_getaffinity(0)), MOST_WORKERS)
    workers = cores if settings.workers == "auto" else settings.workers
    return until_stopped(lambda stop: _serve(settings, workers, stop))


async def _serve(settings: Settings, workers: int, stop: Stop) -> int:
    with contextlib.closing(open_sockets(settings, workers)) as sockets:
        if workers == 1:
            from proxy.cli.alone import Alone
            from proxy.supervisor.supervisor import MARGIN

            stop.end_within(settings.drain_delay + settings.drain_timeout + MARGIN)
            await Alone(settings, sockets, WORKER, stop).run(
                lambda: _say_serving(settings, workers, sockets)
            )
        else:
            await _supervise(settings, workers, sockets, stop)
    return stop.drained


async def _supervise(settings: Settings, workers: int, sockets: Sockets, stop: Stop) -> None:
    from proxy.supervisor.supervisor import Supervisor

    supervisor = Supervisor(settings, sockets, WORKER, Clock())
    signals.heed(signal.SIGHUP, supervisor.reload)
    async with stop.insisting(supervisor.hurry):
        await supervisor.run(stop, lambda: _say_serving(settings, workers, sockets), stop.delay)


def _say_serving(settings: Settings, workers: int, sockets: Sockets) -> None:
    log.info(
        "serving",
        public=f"{settings.listen_address[0]}:{sockets.public_port}",
        admin=f"{settings.admin_address[0]}:{sockets.admin_port}",
        bucket=keys.bucket_url(settings.bucket_url, settings.data_dir),
        workers=workers,
    )
    warn_of_insecurity(settings)


def warn_of_insecurity(settings: Settings) -> None:
    """Log what is meant for tests and demos only."""
    if settings.upstream_allow_insecure:
        log.warning("FIRSTVIEW_UPSTREAM_ALLOW_INSECURE is on: http and private addresses too")
