"""The admin listener: metrics, health, and the API.

Belongs here: the addresses that only the owner reaches, and who may use the API. Must not know: how
the public listener answers, or what the API's parts (`api_*.py`) do.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.catalog.generations import Generations
from proxy.catalog.jobs import Jobs
from proxy.catalog.search import Search
from proxy.clock import Clock
from proxy.delivery.locate import Locator
from proxy.errors import (
    FirstviewError,
    MethodNotAllowed,
    Overloaded,
    RouteNotFound,
    Unauthorized,
)
from proxy.security.links import Links
from proxy.settings import Settings
from proxy.storage.bucket import Bucket
from proxy.web.api_generations import GenerationsApi
from proxy.web.api_jobs import JobsApi
from proxy.web.api_links import LinksApi
from proxy.web.probes import Probes
from proxy.web.problems import render

_MAX_BODY: Final = 1024 * 1024
_API: Final = "/api/"

Call = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger()


class Admin:
    """Builds the admin application."""

    def __init__(
        self,
        settings: Settings,
        *,
        generations: Generations,
        search: Search,
        jobs: Jobs,
        links: Links,
        bucket: Bucket,
        locator: Locator,
        clock: Clock,
        figures: Callable[[], Awaitable[bytes]],
        probes: Probes,
        allowed: Callable[[str], object],
        wake: Callable[[], None],
    ) -> None:
        """Take what is behind the addresses.

        `figures` gives the metrics in Prometheus' text format, `allowed` raises SourceUntrusted
        for a URL that would never be fetched, `wake` lets the worker look for jobs at once.
        """
        self._token = settings.admin_token
        self._figures = figures
        self._parts = (
            probes,
            GenerationsApi(
                generations=generations,
                search=search,
                locator=locator,
                allowed=allowed,
                wake=wake,
            ),
            JobsApi(jobs=jobs, generations=generations, clock=clock, wake=wake),
            LinksApi(
                links=links,
                public_url=settings.public_url,
                presign=bucket.presigned,
                generations=generations,
                clock=clock,
            ),
        )

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(
            middlewares=[self._problems, self._authorized], client_max_size=_MAX_BODY
        )
        app.router.add_get("/metrics", self._metrics_page)
        for part in self._parts:
            part.add_to(app.router)
        return app

    # -- for machines ---

    async def _metrics_page(self, _request: web.Request) -> web.Response:
        try:
            body = await self._figures()
        except (ConnectionError, TimeoutError, LookupError) as error:
            # Half of the sums would look like a restart; a scrape that failed is only a gap.
            raise Overloaded("the other workers' metrics cannot be had") from error
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    # -- who may ask ---

    @web.middleware
    async def _authorized(self, request: web.Request, handler: Call) -> web.StreamResponse:
        if request.path.startswith(_API):
            self._authorize(request)
        return await handler(request)

    def _authorize(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "")
        scheme, _, token = given.partition(" ")
        if self._token is None:
            msg = "the admin API is off: set FIRSTVIEW_ADMIN_TOKEN to use it"
            raise Unauthorized(msg)
        wanted = self._token.get_secret_value().encode()
        if scheme.lower() != "bearer" or not hmac.compare_digest(_bytes(token), wanted):
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


def _bytes(token: str) -> bytes:
    # As aiohttp decoded it: whatever came, comes back.
    return token.encode("utf-8", "surrogateescape")


def _problem(request: web.Request, error: Exception) -> web.Response:
    problem = render(
        error, request_id=request.headers.get("X-Request-Id", "-"), instance=request.path
    )
    if isinstance(error, FirstviewError):
        log.info("admin request refused", path=request.path, error=error.slug, detail=error.detail)
    return web.Response(status=problem.status, body=problem.body, headers=dict(problem.fields))
