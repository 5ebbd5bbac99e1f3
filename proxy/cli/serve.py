"""`firstview serve`: run the origin until it is told to stop.

Belongs here: what is said at the start and at the end. Must not know: how anything is served.
"""

from __future__ import annotations

import structlog

from proxy.app import App
from proxy.cli.running import Stop, until_stopped
from proxy.settings import Settings
from proxy.storage import keys
from proxy.telemetry.log import configure

log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let replies and fills finish. Raises FirstviewError."""
    configure(settings.log_level, settings.log_format)
    until_stopped(lambda stop: _serve(settings, stop))


async def _serve(settings: Settings, stop: Stop) -> None:
    async with App(settings).running() as app:
        log.info(
            "serving",
            public=f"{settings.listen_address[0]}:{app.public_port}",
            admin=f"{settings.admin_address[0]}:{app.admin_port}",
            bucket=keys.bucket_url(settings.bucket_url, settings.data_dir),
        )
        warn_of_insecurity(settings)
        await stop.wait()
        log.info("stopping", drain_timeout=settings.drain_timeout)


def warn_of_insecurity(settings: Settings) -> None:
    """Log what is meant for tests and demos only."""
    if settings.upstream_allow_insecure:
        log.warning("FIRSTVIEW_UPSTREAM_ALLOW_INSECURE is on: http and private addresses too")
