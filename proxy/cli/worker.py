"""`firstview worker`: work on jobs, without viewers, until it is told to stop.

Belongs here: what is said at the start and at the end, and beginning afresh with new settings. Must
not know: what a job is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import structlog

from proxy.app import App
from proxy.cli import failing, signals
from proxy.cli.running import Stop, either, until_stopped
from proxy.cli.serve import warn_of_insecurity
from proxy.errors import FirstviewError
from proxy.settings import Settings, load
from proxy.storage import keys
from proxy.supervisor.supervisor import MARGIN
from proxy.telemetry.log import written_aside

log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT, then let the running jobs finish; returns the exit code.

    Does not return after a SIGHUP: the process becomes another one. Raises FirstviewError.
    """
    with written_aside(settings):
        code = until_stopped(lambda stop: _work(settings, stop))
    if code is None:
        # Its id stays, for who has started it; what it has open ends here, but for the output.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this very one
    return code


async def _work(settings: Settings, stop: Stop) -> int | None:
    """Return the exit code, or None if it is to begin afresh."""
    reload, app = asyncio.Event(), App(settings)
    signals.heed(signal.SIGHUP, reload.set)
    stop.end_within(settings.drain_timeout + MARGIN)
    async with stop.insisting(app.leaving.hurry), app.working():
        log.info(
            "working",
            admin=f"{settings.admin_address[0]}:{app.admin_port}",
            bucket=keys.bucket_url(settings.bucket_url, settings.data_dir),
            mirrors=settings.mirror_concurrency,
        )
        warn_of_insecurity(settings)
        await _until_told(stop, reload)
        log.info("stopping", drain_timeout=settings.drain_timeout)
        app.leaving.announce()
    signals.hold()
    await asyncio.sleep(0)  # what came before that is heard by now
    if stop.is_set():
        return stop.drained
    log.info("reloading")
    return None


async def _until_told(stop: Stop, reload: asyncio.Event) -> None:
    """Return when told to stop, or to begin afresh if that is possible."""
    while not stop.is_set():
        await either(stop, reload)
        reload.clear()
        if stop.is_set() or await _could_begin():
            return


async def _could_begin() -> bool:
    """Whether a process with the settings of now would start: all that it opens opens."""
    try:
        async with App(await asyncio.to_thread(load)).working(works=False, sweeps=False):
            return True
    except FirstviewError as error:
        log.error("not reloaded: this process goes on", why=failing.told(error))  # noqa: TRY400
        return False
