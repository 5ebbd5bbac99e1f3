"""`/api/v1/generations`: look one up, register one, search them.

Belongs here: what these addresses take and answer. Must not know: who may ask (`admin.py`), or how
rows are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiohttp import web

from proxy.catalog.changes import Outcome
from proxy.catalog.generations import Generations
from proxy.catalog.imports import parse_body
from proxy.catalog.search import Search
from proxy.delivery.locate import Locator
from proxy.errors import BadRequest, SourceUntrusted, UnknownClip
from proxy.records import Status
from proxy.web import api_requests
from proxy.web.api_requests import Query

_PARAMETERS: Final = frozenset(
    {"status", "model", "prefix", "prompt", "prompt_hash", "since", "until", "after", "limit"}
)


class GenerationsApi:
    """Generations, for their owner: everything that is known of them."""

    def __init__(
        self,
        *,
        generations: Generations,
        search: Search,
        locator: Locator,
        allowed: Callable[[str], object],
        wake: Callable[[], None],
    ) -> None:
        """Take what is behind the addresses.

        `allowed` raises SourceUntrusted for a URL that would never be fetched; `wake` lets the
        worker look for jobs at once.
        """
        self._generations = generations
        self._search = search
        self._locator = locator
        self._allowed = allowed
        self._wake = wake

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the addresses."""
        router.add_get("/api/v1/generations", self._find)
        router.add_get("/api/v1/generations/{id}", self._get)
        router.add_put("/api/v1/generations/{id}", self._put)

    async def _find(self, request: web.Request) -> web.Response:
        query = Query(request, _PARAMETERS)
        page = await self._search.find(
            status=query.word("status", Status),
            model=query.text("model"),
            prefix=query.text("prefix") or "",
            prompt=query.text("prompt"),
            prompt_hash=query.text("prompt_hash"),
            since=query.moment("since"),
            until=query.moment("until"),
            after=query.text("after"),
            limit=query.limit(),
        )
        items = [api_requests.fields(row) for row in page.items]
        return api_requests.answer({"items": items, "next": page.next})

    async def _get(self, request: web.Request) -> web.Response:
        row = await self._generations.get(api_requests.request_id(request))
        if row is None:
            raise UnknownClip
        return api_requests.answer(api_requests.fields(row))

    async def _put(self, request: web.Request) -> web.Response:
        """Register a generation, or add to what is known of it; re-points at once."""
        request_id = api_requests.request_id(request)
        registration = parse_body(request_id, await api_requests.body(request))
        if registration.fal_url is not None:
            try:
                self._allowed(registration.fal_url)
            except SourceUntrusted as error:
                raise BadRequest(f"fal_url: {error.detail}") from error
        [outcome] = await self._generations.register([registration])
        if outcome is Outcome.REPOINTED:
            await self._locator.forget(request_id)
        else:
            self._locator.refresh(request_id)
        if outcome is not Outcome.UNCHANGED:
            self._wake()
        row = await self._generations.get(request_id)
        if row is None:
            raise UnknownClip
        status = 201 if outcome is Outcome.CREATED else 200
        return api_requests.answer(api_requests.fields(row), status)
