"""The public listener's addresses, and what holds for all of them.

Belongs here: routing, methods, and turning errors into problem documents. Must not know: how any
address is answered.
"""

from __future__ import annotations

import asyncio
import re

from aiohttp.web_request import BaseRequest

from proxy.errors import (
    FirstviewError,
    InvalidRequestId,
    LinkRefused,
    MethodNotAllowed,
    RequestError,
    RouteNotFound,
    ViewerLeft,
    ViewerStalled,
)
from proxy.records import REQUEST_ID
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.values import NONE, STOPPED, TIERS
from proxy.web import headers
from proxy.web.access import Access
from proxy.web.connection import Connection
from proxy.web.exchange import Exchange
from proxy.web.gate import Gate
from proxy.web.machine import Sent
from proxy.web.videos import Videos
from proxy.web.webhooks import Webhooks

NO_ACCESS = Access()
"""Who tells the log of crashes only."""

_VIDEO = re.compile(rf"/videos/({REQUEST_ID.pattern})\.mp4")
_VIDEOS = "/videos/"
HEALTH = "/healthz"
_WEBHOOKS = "/webhooks/fal"
_UNLOCKED = (HEALTH, _WEBHOOKS)
"""Asked by what runs the process, and by fal, who comes directly and signs what it sends."""
_ALLOW = "GET, HEAD, OPTIONS"
_HEALTH_FIELDS = headers.block([("Content-Type", "text/plain"), ("Cache-Control", "no-store")])


class Public:
    """Answers every request on the public listener."""

    def __init__(
        self,
        videos: Videos,
        webhooks: Webhooks,
        gate: Gate,
        metrics: Metrics,
        *,
        access: Access = NO_ACCESS,
    ) -> None:
        """Take what is behind the addresses, who gets in, and who logs requests."""
        self._videos = videos
        self._gate = gate
        self._webhooks = webhooks
        self._metrics = metrics
        self._access = access
        self._preflight = headers.preflight_fields(videos.policy)

    async def __call__(self, request: BaseRequest, connection: Connection) -> Sent:
        """Answer one request; an error before the first byte becomes a problem document."""
        exchange = Exchange(request, connection, self._metrics)
        try:
            return await self._answer(exchange)
        finally:
            exchange.tell(self._access)

    async def _answer(self, exchange: Exchange) -> Sent:
        try:
            return await self._route(exchange)
        except (ViewerLeft, ViewerStalled, ConnectionError) as error:
            stalled = isinstance(error, ViewerStalled)
            self._broke_off(exchange, ViewerStalled.slug if stalled else ViewerLeft.slug)
            exchange.connection.reset()
            return Sent(keep_alive=False)
        except asyncio.CancelledError:
            self._broke_off(exchange, STOPPED if exchange.connection.is_cut else ViewerLeft.slug)
            raise
        except Exception as error:  # noqa: BLE001 - the gate: whatever it is, the viewer is told
            return await self._refuse(exchange, error)

    async def _route(self, exchange: Exchange) -> Sent:
        path, _, query = exchange.request.raw_path.partition("?")
        if not path.startswith("/"):  # the absolute form, as a proxy may send it
            path = exchange.request.rel_url.raw_path
        self._admit(exchange, path)
        match = _VIDEO.fullmatch(path)
        method = exchange.request.method
        if match is not None and method in {"GET", "HEAD"}:
            exchange.request_id = match[1]
            return await self._videos.answer(exchange, match[1], query)
        if path == HEALTH or match is not None:
            if method == "OPTIONS":
                return await exchange.send_plain(204, self._preflight)
            if method not in {"GET", "HEAD"}:
                raise MethodNotAllowed(_ALLOW)
            return await exchange.send_plain(200, _HEALTH_FIELDS, b"ok\n")
        if path == _WEBHOOKS:
            if method != "POST":
                raise MethodNotAllowed("POST")
            return await self._webhooks.answer(exchange)
        raise self._nothing_at(path)

    def _nothing_at(self, path: str) -> RequestError:
        """What to say of an address that is none.

        No link is valid for it: where clips are gated it is refused like an id that nobody knows.
        """
        if not path.startswith(_VIDEOS):
            return RouteNotFound()
        if self._gate.is_gated:
            return LinkRefused()
        msg = "a clip's address is /videos/<request id>.mp4, its id letters, digits, - and _"
        return InvalidRequestId(msg)

    def _admit(self, exchange: Exchange, path: str) -> None:
        """Raise OriginLocked for what has to come through the edge and does not.

        What does is whose the edge says.
        """
        if path not in _UNLOCKED and self._gate.is_locked:
            self._gate.check(exchange.request)
            exchange.client = self._gate.client(exchange.request)

    async def _refuse(self, exchange: Exchange, error: Exception) -> Sent:
        try:
            return await exchange.send_problem(error, self._videos.policy.cors_origin)
        except (FirstviewError, ConnectionError):
            self._broke_off(exchange, ViewerLeft.slug)
            return Sent(keep_alive=False)

    def _broke_off(self, exchange: Exchange, reason: str) -> None:
        """A reply did not reach its end; counted once, whoever notices first."""
        if exchange.ended is None:
            exchange.ended = reason
            tier = exchange.tier if exchange.tier in TIERS else NONE
            self._metrics.aborted.labels(reason, tier or NONE).inc()
