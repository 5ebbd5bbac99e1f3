"""`GET` and `HEAD /videos/<request_id>.mp4`: the reply that everything else is for.

Belongs here: the way of one request for a clip, step by step. Must not know: where bytes come
from, how a range is parsed, or which other addresses there are.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from urllib.parse import parse_qs

from proxy.delivery.locate import Known, Locator
from proxy.delivery.send import Sender
from proxy.delivery.view import View, Wanted
from proxy.delivery.viewer import ViewerSocket
from proxy.errors import FirstviewError, Overloaded, ViewerLeft, ViewerStalled
from proxy.settings import Settings
from proxy.telemetry.metrics import Metrics
from proxy.web import headers, ranges
from proxy.web.connection import Sent
from proxy.web.exchange import Exchange
from proxy.web.headers import ReplyPolicy, Tier
from proxy.web.reply import Plan, plan

_CONDITIONS = ("If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")


class Videos:
    """Answers requests for clips."""

    def __init__(
        self, settings: Settings, locator: Locator, sender: Sender, metrics: Metrics
    ) -> None:
        """Take the corridor's two ends."""
        self._locator = locator
        self._sender = sender
        self._metrics = metrics
        self._max_viewers = settings.max_viewers
        self.policy = ReplyPolicy(settings.cache_control, settings.cors_origin)
        self._viewers = 0
        self._debugging = settings.log_level.lower() == "debug"
        self._sent_bytes = functools.cache(metrics.sent_bytes.labels)  # tiers are few

    async def answer(self, exchange: Exchange, request_id: str, query: str) -> Sent:
        """Answer one request. Raises any FirstviewError before the first byte is sent."""
        request = exchange.request
        if request.method == "HEAD":
            known = await self._locator.facts(request_id)
            decided = plan(request.headers, known.facts, method="HEAD")
            return await self._send_head(exchange, known, decided, query)
        file = self._locator.hot(request_id)
        if file is not None:
            view = View(facts=file.facts, tier=file.tier, file=file.acquire())
            return await self._send_view(exchange, view, query)
        if any(name in request.headers for name in _CONDITIONS):
            near = await self._locator.known(request_id)
            if near is not None:
                decided = plan(request.headers, near.facts, method="GET")
                if not decided.segments:
                    return await self._send_head(exchange, near, decided, query)
        if self._viewers >= self._max_viewers:
            self._metrics.shed.labels("max_viewers").inc()
            raise Overloaded
        with self._counted():
            view = await self._locator.find(request_id, wanted(request.headers.get("Range")))
            return await self._send_view(exchange, view, query)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._viewers += 1
        self._metrics.viewers.inc()
        try:
            yield
        finally:
            self._viewers -= 1
            self._metrics.viewers.dec()

    # -- sending ---

    async def _send_head(self, exchange: Exchange, known: Known, decided: Plan, query: str) -> Sent:
        tier: Tier = known.tier  # type: ignore[assignment]
        extra = [
            *decided.fields,
            ("Cache-Status", headers.cache_status(tier, hit=known.hit)),
            *exchange.fields(),
            *_download(query, known.facts.request_id),
        ]
        stable = headers.stable_fields(self.policy, known.facts)
        await exchange.viewer().send(headers.head(decided.status, stable, extra))
        return exchange.sent(decided.status, known.tier)

    async def _send_view(self, exchange: Exchange, view: View, query: str) -> Sent:
        try:
            decided = plan(exchange.request.headers, view.facts, method="GET")
            cache_status = self._cache_status(view)
            extra = [
                *decided.fields,
                ("Cache-Status", cache_status),
                *exchange.fields(),
                *_download(query, view.facts.request_id),
            ]
            head = headers.head(decided.status, self._stable(view), extra)
            if self._debugging:
                exchange.begun(decided.status, view.facts.request_id, cache_status)
            viewer = exchange.viewer()
            before = viewer.sent
            try:
                await self._send_body(viewer, view, decided, head)
            except FirstviewError as error:
                return self._broken(exchange, view, error)
            except BaseException:  # told to stop: what was sent must not look whole
                exchange.connection.reset()
                raise
            finally:
                sent = max(0, viewer.sent - before - len(head))
                self._sent_bytes(view.tier).inc(sent)
        finally:
            view.release()
        return exchange.sent(decided.status, view.tier)

    async def _send_body(
        self, viewer: ViewerSocket, view: View, decided: Plan, head: bytes
    ) -> None:
        await viewer.send(head, more=bool(decided.segments) and view.hit)
        for segment in decided.segments:
            if isinstance(segment, bytes):
                await viewer.send(segment, more=view.hit)
            else:
                await self._sender.send(viewer, view, segment.start, segment.stop)

    def _broken(self, exchange: Exchange, view: View, error: FirstviewError) -> Sent:
        """The reply cannot be finished: reset the connection, never end it cleanly."""
        self._metrics.aborted.labels(error.slug).inc()
        if not isinstance(error, ViewerLeft):
            exchange.log_broken(view.tier, error)
            if view.hit and not isinstance(error, ViewerStalled):
                self._locator.doubt(view.facts.request_id)
        exchange.connection.reset()
        return Sent(keep_alive=False)

    def _stable(self, view: View) -> bytes:
        file = view.file
        if file is None:
            return headers.stable_fields(self.policy, view.facts)
        if file.head is None:
            file.head = headers.stable_fields(self.policy, view.facts)
        return file.head

    def _cache_status(self, view: View) -> str:
        tier: Tier = view.tier  # type: ignore[assignment]
        if view.hit:
            return _HITS[tier]
        return headers.cache_status(
            tier,
            hit=False,
            fwd_status=None if view.collapsed else 200,
            stored=view.flight is not None and view.flight.spool is not None,
            collapsed=view.collapsed,
        )


_HITS = {
    "disk": headers.cache_status("disk", hit=True),
    "bucket": headers.cache_status("bucket", hit=True),
}


def wanted(header: str | None) -> Wanted | None:
    """The one range that a request asks for, as the corridor wants it; None for all others."""
    hint = ranges.hint(header)
    if hint is None:
        return None
    if hint.suffix is not None:
        return Wanted(-hint.suffix)
    return Wanted(hint.first or 0, None if hint.last is None else hint.last + 1)


def _download(query: str, request_id: str) -> list[tuple[str, str]]:
    if "download" not in query:
        return []
    names = parse_qs(query, keep_blank_values=True, max_num_fields=32).get("download")
    if names is None:
        return []
    return [("Content-Disposition", headers.content_disposition(names[0], request_id))]
