"""A reply that has begun and cannot be finished.

Belongs here: what is counted, logged and doubted then. Must not know: sockets; ending the
connection so that nobody takes the part for the whole is for whoever has it.
"""

from __future__ import annotations

import structlog

from proxy.delivery.locate import Locator
from proxy.errors import FirstviewError, ViewerLeft, ViewerStalled
from proxy.security.links import without_token
from proxy.telemetry.metrics import Metrics

log = structlog.get_logger()


class Breakages:
    """Takes note of replies that were cut off."""

    def __init__(self, locator: Locator, metrics: Metrics) -> None:
        """Take whom to tell."""
        self._locator = locator
        self._metrics = metrics

    def note(
        self,
        error: FirstviewError,
        *,
        exchange: str,
        path: str,
        request_id: str,
        tier: str,
        hit: bool,
    ) -> None:
        """A reply was cut off: count it, and say why, unless it is that the viewer left."""
        self._metrics.aborted.labels(error.slug, tier).inc()
        if isinstance(error, ViewerLeft):
            return
        log.warning(
            "reply reset",
            exchange=exchange,
            path=without_token(path)[:200],
            request_id=request_id,
            tier=tier,
            error=error.slug,
            detail=error.detail,
        )
        if hit and not isinstance(error, ViewerStalled):
            self._locator.doubt(request_id)
