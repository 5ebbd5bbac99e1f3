"""`/api/v1/jobs` and `/api/v1/stats`: what is still to be done, and what has been given up.

Belongs here: what these addresses take and answer. Must not know: who may ask (`admin.py`), or what
a job does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from proxy.catalog.generations import Generations
from proxy.catalog.jobs import Jobs
from proxy.clock import Clock
from proxy.errors import BadRequest
from proxy.records import JobKind, JobState
from proxy.web import api_requests
from proxy.web.api_requests import Body, Query

_PARAMETERS: Final = frozenset({"state", "kind", "after", "limit"})
_RETRY: Final = frozenset({"request_ids", "all", "kind"})


class JobsApi:
    """Jobs, for the owner: listed, counted, tried again."""

    def __init__(
        self, *, jobs: Jobs, generations: Generations, clock: Clock, wake: Callable[[], None]
    ) -> None:
        """Take what is behind the addresses; `wake` lets the worker look for jobs at once."""
        self._jobs = jobs
        self._generations = generations
        self._clock = clock
        self._wake = wake

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the addresses."""
        router.add_get("/api/v1/jobs", self._list)
        router.add_post("/api/v1/jobs/retry", self._retry)
        router.add_get("/api/v1/stats", self._stats)

    async def _list(self, request: web.Request) -> web.Response:
        query = Query(request, _PARAMETERS)
        page = await self._jobs.list(
            state=query.word("state", JobState),
            kind=query.word("kind", JobKind),
            after=query.text("after"),
            limit=query.limit(),
        )
        now = self._clock.now()
        items = [api_requests.fields(job) | {"state": job.state(now)} for job in page.items]
        return api_requests.answer({"items": items, "next": page.next})

    async def _retry(self, request: web.Request) -> web.Response:
        body = Body(await api_requests.body(request), _RETRY)
        ids, everything = body.ids("request_ids"), body.flag("all")
        if (ids is not None) == everything:
            raise BadRequest('Say which: either "request_ids", or "all": true for every dead job')
        retried = await self._jobs.retry(request_ids=ids, kind=body.word("kind", JobKind))
        if retried:
            self._wake()
        return api_requests.answer({"retried": retried})

    async def _stats(self, request: web.Request) -> web.Response:
        Query(request, frozenset())
        generations = await self._generations.count_by_status()
        counted = await self._jobs.count()
        jobs: dict[str, dict[str, Any]] = {}
        for kind in JobKind:
            states = {state.value: counted.by_state.get((kind, state), 0) for state in JobState}
            jobs[kind.value] = states | {"oldest_due_seconds": counted.oldest_due.get(kind, 0.0)}
        by_status = {status.value: count for status, count in generations.items()}
        return api_requests.answer({"generations": by_status, "jobs": jobs})
