"""`firstview worker`: work on jobs, without viewers, until it is told to stop.

Belongs here: what is said at the start and at the end. Must not know: what a job is.
"""

from __future__ import annotations

import structlog

from proxy.app import App
from proxy.cli.running import Stop, until_stopped
from proxy.cli.serve import warn_of_insecurity
from proxy.settings import Settings
from proxy.storage import keys
from proxy.telemetry.log import written_aside

log = structlog.get_logger()


def run(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT, then let the running jobs finish; returns the exit code.

    Raises FirstviewError.
    """
    with written_aside(settings):
        return until_stopped(lambda stop: _work(settings, stop))


async def _work(settings: Settings, stop: Stop) -> int:
    app = App(settings)
    async with stop.insisting(app.leaving.hurry), app.working():
        log.info(
            "working",
            admin=f"{settings.admin_address[0]}:{app.admin_port}",
            bucket=keys.bucket_url(settings.bucket_url, settings.data_dir),
            mirrors=settings.mirror_concurrency,
        )
        warn_of_insecurity(settings)
        await stop.wait()
        log.info("stopping", drain_timeout=settings.drain_timeout)
        app.leaving.announce()
    return stop.drained
