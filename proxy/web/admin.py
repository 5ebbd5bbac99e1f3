"""The admin listener: metrics, health, and the API for generations.

Belongs here: the addresses that only the owner reaches. Must not know: how the public listener
answers, or how rows are kept.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from proxy.catalog.changes import Outcome
from proxy.catalog.generations import Generations
from proxy.catalog.imports import parse_body
from proxy.delivery.locate import Locator
from proxy.errors import (
    BadRequest,
    BodyTooLarge,
    FirstviewError,
    InvalidRequestId,
    MethodNotAllowed,
    RouteNotFound,
    SourceUntrusted,
    Unauthorized,
    UnknownClip,
)
from proxy.records import REQUEST_ID, Generation
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.web.problems import render

_MAX_BODY = 1024 * 1024

Call = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger()


class Admin:
    """Builds the admin application."""

    def __init__(
        self,
        settings: Settings,
        *,
        generations: Generations,
        locator: Locator,
        metrics: Metrics,
        refresh: Callable[[], None],
        ready: Callable[[], Awaitable[None]],
        allowed: Callable[[str], object],
    ) -> None:
        """Take what is behind the addresses.

        `refresh` brings the gauges up to date, `ready` raises what keeps the process from
        serving, `allowed` raises SourceUntrusted for a URL that would never be fetched.
        """
        self._token = settings.admin_token
        self._generations = generations
        self._locator = locator
        self._metrics = metrics
        self._refresh = refresh
        self._ready = ready
        self._allowed = allowed

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._problems], client_max_size=_MAX_BODY)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/api/v1/generations/{id}", self._get)
        app.router.add_put("/api/v1/generations/{id}", self._put)
        return app

    # -- for machines ---

    async def _metrics_page(self, _request: web.Request) -> web.Response:
        self._refresh()
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        await self._ready()
        return web.Response(text="ready\n")

    # -- generations ---

    async def _get(self, request: web.Request) -> web.Response:
        self._authorize(request)
        row = await self._generations.get(_request_id(request))
        if row is None:
            raise UnknownClip
        return _json(row)

    async def _put(self, request: web.Request) -> web.Response:
        """Register a generation, or add to what is known of it; re-points at once."""
        self._authorize(request)
        request_id = _request_id(request)
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise BodyTooLarge from error
        registration = parse_body(request_id, body)
        if registration.fal_url is not None:
            try:
                self._allowed(registration.fal_url)
            except SourceUntrusted as error:
                msg = f"fal_url: {error.detail}"
                raise BadRequest(msg) from error
        [outcome] = await self._generations.register([registration])
        if outcome is Outcome.REPOINTED:
            await self._locator.forget(request_id)
        else:
            self._locator.refresh(request_id)
        row = await self._generations.get(request_id)
        if row is None:
            raise UnknownClip
        return _json(row, status=201 if outcome is Outcome.CREATED else 200)

    def _authorize(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "")
        scheme, _, token = given.partition(" ")
        if self._token is None:
            msg = "the admin API is off: set FIRSTVIEW_ADMIN_TOKEN to use it"
            raise Unauthorized(msg)
        wanted = self._token.get_secret_value().encode()
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.encode(), wanted):
            raise Unauthorized

    # -- errors ---

    @web.middleware
    async def _problems(self, request: web.Request, handler: Call) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as error:
            return _problem(request, MethodNotAllowed(", ".join(sorted(error.allowed_methods))))
        except web.HTTPNotFound:
            return _problem(request, RouteNotFound())
        except web.HTTPException:
            raise
        except FirstviewError as error:
            return _problem(request, error)
        except Exception as error:
            log.exception("admin request crashed", path=request.path)
            return _problem(request, error)


def _request_id(request: web.Request) -> str:
    request_id = request.match_info["id"]
    if REQUEST_ID.fullmatch(request_id) is None:
        msg = "a request id is letters, digits, - and _, at most 128 of them"
        raise InvalidRequestId(msg)
    return request_id


def _json(row: Generation, status: int = 200) -> web.Response:
    body: dict[str, Any] = {name: getattr(row, name) for name in row.__slots__}
    return web.Response(
        status=status,
        body=orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        content_type="application/json",
    )


def _problem(request: web.Request, error: Exception) -> web.Response:
    problem = render(
        error, request_id=request.headers.get("X-Request-Id", "-"), instance=request.path
    )
    if isinstance(error, FirstviewError):
        log.info("admin request refused", path=request.path, error=error.slug, detail=error.detail)
    return web.Response(status=problem.status, body=problem.body, headers=dict(problem.fields))
