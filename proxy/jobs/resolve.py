"""Resolving: asking fal where a clip is that the catalog knows without an address.

Belongs here: whether fal is asked, how often, and who is told its answer. Must not know: how fal
is asked, where a video sits in an output, or what a notice does to the catalog.

Two come in here: the resolve job, which has time, and a view of a clip that is not ready, which
has little. Both share one question per id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Protocol

import structlog
from cachetools import TTLCache

from proxy.clock import Clock
from proxy.errors import FirstviewError, Overloaded
from proxy.jobs import verdict
from proxy.jobs.mirror import Rows
from proxy.jobs.verdict import DONE, Outcome, Verdict
from proxy.records import Generation, Job, Notice, Status
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.upstream.fal_answers import Answer, Failed, Pending, Unknown, is_model
from proxy.upstream.outputs import for_the_log, notice_of

_MOST_AT_ONCE: Final = 64
"""Questions to fal that are open at once; what comes beyond is turned away."""
_MOST_REMEMBERED: Final = 10_000

_NO_KEY: Final = "fal cannot be asked for the clip's address without a key: set FIRSTVIEW_FAL_KEY"
_NO_MODEL: Final = (
    "fal cannot be asked for the clip's address without its model: register the clip with one, as"
    " in fal-ai/kling-video/v2/master"
)
_UNKNOWN: Final = (
    "fal does not know this request and model, or has kept no result; results are kept for an hour"
    " at most unless the account stores payloads"
)

log = structlog.get_logger()


class Resolved(StrEnum):
    """What came of a question."""

    FOUND = "found"
    PENDING = "pending"
    FAILED = "failed"
    UNKNOWN = "unknown"
    UNAVAILABLE = "unavailable"
    NO_KEY = "no-key"
    NO_MODEL = "no-model"


_SETTLED: Final = frozenset({Resolved.FOUND, Resolved.FAILED})


class Api(Protocol):
    """Who is asked; `proxy.upstream.fal_api.FalApi` asks fal."""

    @property
    def has_key(self) -> bool:
        """Whether anything can be asked."""
        ...

    async def result(self, model: str, request_id: str) -> Answer:
        """Say what became of a request."""
        ...


class Taking(Protocol):
    """Who takes notices; `proxy.catalog.notices.Notices` does."""

    async def take(self, notice: Notice) -> object:
        """Write what a notice says, once."""
        ...


class Resolver:
    """Asks fal for results. One question per id at a time, and none again for a while."""

    def __init__(
        self,
        api: Api,
        *,
        notices: Taking,
        generations: Rows,
        check: Callable[[str], str],
        settings: Settings,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        """Take fal's API and the catalog; `check` refuses addresses that may not be fetched."""
        self._api = api
        self._notices = notices
        self._generations = generations
        self._check = check
        self._settings = settings
        self._metrics = metrics
        self._asking: dict[str, asyncio.Task[Resolved]] = {}
        self._in_vain: TTLCache[str, Resolved | FirstviewError] = TTLCache(
            _MOST_REMEMBERED, settings.resolve_pause, timer=clock.monotonic
        )

    async def close(self) -> None:
        """Break off what is being asked."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- for a view ---

    async def resolve(self, row: Generation) -> bool:
        """Tell whether the catalog knows more of a pending clip now than `row` does.

        Answers within `fal_api_timeout`, and at once if nothing new can be had. Raises nothing:
        whoever waits hears that the clip is not ready, which is true.
        """
        if row.status is not Status.PENDING or self._reason_not_to_ask(row) is not None:
            return False
        if row.request_id in self._in_vain:
            return False
        try:
            async with asyncio.timeout(self._settings.fal_api_timeout):
                return await self._answer(row) in _SETTLED
        except (FirstviewError, TimeoutError):
            return False  # counted and logged where it was asked
        except Exception:
            log.exception("resolving crashed", request_id=row.request_id)
            return False

    # -- for a job ---

    async def __call__(self, job: Job) -> Verdict:
        """Do one resolve job. Raises what is in the way: fal's API, or the catalog."""
        row = await self._generations.get(job.request_id)
        if row is None or row.status is not Status.PENDING:
            error = "the catalog does not know the clip" if row is None else f"it is {row.status}"
            return Verdict(outcome=Outcome.POINTLESS, error=error)
        reason = self._reason_not_to_ask(row)
        if reason is not None:
            self._metrics.resolves.labels(reason.value).inc()
            error = _NO_KEY if reason is Resolved.NO_KEY else _NO_MODEL
            return Verdict(outcome=Outcome.POSTPONED, error=error)
        found = self._in_vain.get(row.request_id)
        if found is None:
            found = await self._answer(row)
        if isinstance(found, FirstviewError):
            return verdict.of(found)
        if found in _SETTLED:
            return DONE
        pause = self._settings.resolve_pause
        if found is Resolved.PENDING:
            error = "fal is still generating the clip"
            return Verdict(outcome=Outcome.POSTPONED, error=error, wait=pause, counted=False)
        return Verdict(outcome=Outcome.POSTPONED, error=_UNKNOWN, wait=pause)

    # -- asking ---

    def _reason_not_to_ask(self, row: Generation) -> Resolved | None:
        if not self._api.has_key:
            return Resolved.NO_KEY
        return None if row.model is not None and is_model(row.model) else Resolved.NO_MODEL

    async def _answer(self, row: Generation) -> Resolved:
        """Ask, or wait for whoever is asking; leaving stops nobody. Raises FirstviewError."""
        task = self._asking.get(row.request_id)
        if task is None:
            if len(self._asking) >= _MOST_AT_ONCE:
                raise Overloaded("too many results are being asked for; try again shortly")
            task = asyncio.create_task(self._ask(row), name=f"resolve {row.request_id}")
            self._asking[row.request_id] = task
            task.add_done_callback(lambda done: self._answered(row.request_id, done))
        return await asyncio.shield(task)

    def _answered(self, request_id: str, task: asyncio.Task[Resolved]) -> None:
        del self._asking[request_id]
        if not task.cancelled():
            task.exception()  # whoever still waits has it

    async def _ask(self, row: Generation) -> Resolved:
        request_id = row.request_id
        try:
            answer = await self._api.result(row.model or "", request_id)
        except FirstviewError as error:
            self._note(request_id, Resolved.UNAVAILABLE, error.detail)
            self._in_vain[request_id] = error
            raise
        found, notice = self._understood(request_id, answer)
        self._note(request_id, found, None if notice is None else notice.failure)
        if notice is None:
            self._in_vain[request_id] = found
        else:
            await self._notices.take(notice)
        return found

    def _understood(self, request_id: str, answer: Answer) -> tuple[Resolved, Notice | None]:
        if isinstance(answer, Pending):
            return Resolved.PENDING, None
        if isinstance(answer, Unknown):
            return Resolved.UNKNOWN, None
        if isinstance(answer, Failed):
            return Resolved.FAILED, Notice(request_id=request_id, failure=answer.reason)
        notice = notice_of(request_id, answer.value, self._check)
        return (Resolved.FAILED if notice.failure else Resolved.FOUND), notice

    def _note(self, request_id: str, found: Resolved, why: str | None) -> None:
        self._metrics.resolves.labels(found.value).inc()
        reason = None if why is None else for_the_log(why)
        log.info("fal was asked", request_id=request_id, outcome=found.value, reason=reason)
