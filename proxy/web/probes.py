"""`/livez` and `/readyz`: whether this process works, and whether it should be sent viewers.

Belongs here: the addresses, the status, text or JSON. Must not know: what is looked at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from proxy.telemetry.health import Report

_FIELDS: Final = {"Cache-Control": "no-store", "Vary": "Accept"}


class Probes:
    """Both addresses. 200 or 503, and in either case the reasons, all at once."""

    def __init__(self, alive: Callable[[], Report], ready: Callable[[], Awaitable[Report]]) -> None:
        """Take who looks: both answer within a second, and are asked as often as anybody likes."""
        self._alive = alive
        self._ready = ready

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add both."""
        router.add_get("/livez", self._livez)
        router.add_get("/readyz", self._readyz)

    async def _livez(self, request: web.Request) -> web.Response:
        return _reply(request, self._alive())

    async def _readyz(self, request: web.Request) -> web.Response:
        return _reply(request, await self._ready())


def _reply(request: web.Request, report: Report) -> web.Response:
    status = 200 if report.is_good else 503
    if "application/json" in request.headers.get("Accept", ""):
        body, kind = report.as_json(), "application/json"
    else:
        body, kind = report.as_text().encode(), "text/plain; charset=utf-8"
    return web.Response(status=status, body=body, headers={**_FIELDS, "Content-Type": kind})
