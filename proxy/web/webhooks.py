"""`POST /webhooks/fal`: fal says that a generation is finished, and it is written down.

Belongs here: the steps from a request to its answer, in their order, and how each is counted and
logged. Must not know: what is in a body, how signatures work, how rows are kept, or any clip's
bytes: fal waits for 15 s at most, so nothing is fetched here.

fal sends again what is not answered with a 2xx, for an hour or two. So 200 means that the notice
is in the catalog, and whatever keeps it from getting there is a 503.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import orjson
import structlog

from proxy.clock import Clock
from proxy.errors import (
    BadSignature,
    BodyTooLarge,
    CatalogUnavailable,
    FirstviewError,
    Overloaded,
    RequestError,
    RequestTimeout,
    ViewerLeft,
    ViewerStalled,
)
from proxy.records import Notice
from proxy.security.fal_signature import Claims
from proxy.security.jwks import Signers
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.of_work import WEBHOOKS
from proxy.upstream.outputs import Check, for_the_log
from proxy.web import headers, webhook_body
from proxy.web.exchange import Exchange
from proxy.web.machine import Sent

_WORK: Final = frozenset({"accepted", "resolving"})
_UNAVAILABLE: Final = 503
_FIELDS: Final = headers.block(
    [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
)

log = structlog.get_logger()


class Notices(Protocol):
    """Where notices are written down."""

    async def take(self, notice: Notice) -> str:
        """Write a notice down; return what became of it, one of `WEBHOOKS_TAKEN`.

        It is durable by then. Raises CatalogError or Overloaded where it cannot be.
        """
        ...


@dataclass(slots=True)
class _Heard:
    """What is known of a webhook so far, for its line in the log."""

    request_id: str = "-"
    reason: str | None = None


class Webhooks:
    """Answers fal's webhooks."""

    def __init__(
        self,
        settings: Settings,
        *,
        signers: Signers,
        notices: Notices,
        check: Check,
        heard: Callable[[str], None],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        """Take the parts.

        `check` returns a URL as it is to be fetched or raises SourceUntrusted; `heard` is told of
        ids that the catalog knows more of and that there is work for, and returns at once.
        """
        self._most = int(settings.webhook_max_bytes)
        self._most_bodies = settings.webhook_bodies
        self._bodies = 0
        self._patience = settings.webhook_body_timeout
        self._longest_wait = settings.webhook_patience
        self._tolerance = settings.webhook_tolerance
        self._cors_origin = settings.cors_origin
        self._signers = signers
        self._notices = notices
        self._check = check
        self._heard = heard
        self._clock = clock
        self._metrics = metrics

    async def answer(self, exchange: Exchange) -> Sent:
        """Answer one webhook. Raises only what a client does who is not there any more."""
        heard = _Heard()
        try:
            notice = await self._read(exchange, heard)
            heard.request_id, heard.reason = notice.request_id, notice.failure
            result = await self._take(notice)
        except (ViewerLeft, ViewerStalled, ConnectionError, asyncio.CancelledError):
            self._note(exchange, heard, "left")
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, fal is to send it again
            return await self._refuse(exchange, heard, error)
        self._note(exchange, heard, result)
        if result in _WORK:
            self._heard(notice.request_id)
        return await exchange.send_plain(200, _FIELDS, orjson.dumps({"result": result}) + b"\n")

    async def _read(self, exchange: Exchange, heard: _Heard) -> Notice:
        """Read the request and believe it. Raises FirstviewError."""
        claims = Claims.read(exchange.request.headers.items())
        heard.request_id = claims.request_id
        if self._bodies >= self._most_bodies:
            self._metrics.shed.labels("webhook_bodies").inc()
            raise Overloaded("Too many webhooks are being read at once.")
        self._bodies += 1
        try:
            body = await exchange.body(self._most, self._patience)
            await self._signers.verify(
                claims,
                hashlib.sha256(body).digest(),
                now=self._clock.now().timestamp(),
                tolerance=self._tolerance,
            )
        finally:
            self._bodies -= 1
        return webhook_body.read(body, claims.request_id, self._check)

    async def _take(self, notice: Notice) -> str:
        """Have it written down, or give up in time for fal to be told so.

        What is written after all is a duplicate when fal sends it again.
        """
        waiting = asyncio.timeout(self._longest_wait)
        try:
            async with waiting:
                return await self._notices.take(notice)
        except TimeoutError:
            if not waiting.expired():
                raise
            raise CatalogUnavailable("The catalog does not answer in time.") from None

    async def _refuse(self, exchange: Exchange, heard: _Heard, error: Exception) -> Sent:
        result = _result_of(error)
        known = isinstance(error, RequestError) or (
            isinstance(error, FirstviewError) and error.status == _UNAVAILABLE
        )
        if not known:
            log.error("webhook crashed", exchange=exchange.id, exc_info=error)
        heard.reason = str(error)
        self._note(exchange, heard, result)
        told = error if known else Overloaded("The webhook cannot be taken in just now.")
        return await exchange.send_problem(told, self._cors_origin, logged=True)

    def _note(self, exchange: Exchange, heard: _Heard, result: str) -> None:
        """Count a webhook, and log it."""
        if result in WEBHOOKS:
            self._metrics.webhooks.labels(result).inc()
        fields = {"exchange": exchange.id, "request_id": heard.request_id, "result": result}
        if heard.reason is not None:
            fields["reason"] = for_the_log(heard.reason)
        log.info("webhook", **fields)


def _result_of(error: Exception) -> str:
    kinds: dict[type[FirstviewError], str] = {
        BadSignature: "bad-signature",
        BodyTooLarge: "too-large",
        RequestTimeout: "timeout",
        RequestError: "bad-request",
    }
    return next((name for kind, name in kinds.items() if isinstance(error, kind)), "unavailable")
