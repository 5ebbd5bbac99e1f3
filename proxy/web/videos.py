"""`GET` and `HEAD /videos/<request_id>.mp4`: the reply that everything else is for.

Belongs here: the way of one request for a clip, step by step. Must not know: where bytes come
from, how a range is parsed, or which other addresses there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import parse_qs

from proxy.delivery.locate import Known, Locator
from proxy.delivery.send import Sender
from proxy.delivery.view import View, Wanted
from proxy.delivery.viewer import ViewerSocket
from proxy.errors import BucketError, FirstviewError, Overloaded
from proxy.settings import Settings
from proxy.storage import keys
from proxy.storage.open_files import ServedFile
from proxy.telemetry.metrics import Metrics
from proxy.web import headers, ranges
from proxy.web.broken import Breakages
from proxy.web.exchange import Exchange
from proxy.web.gate import Gate
from proxy.web.headers import ReplyPolicy, Tier
from proxy.web.machine import Sent
from proxy.web.ranges import ByteRange
from proxy.web.reply import Plan, plan, stable, stable_of

Presign = Callable[[str], Awaitable[str | None]]
"""From a key to an address at which anybody may read that object for a while."""

_CONDITIONS = ("If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since")


class Videos:
    """Answers requests for clips."""

    def __init__(
        self,
        settings: Settings,
        locator: Locator,
        gate: Gate,
        sender: Sender,
        metrics: Metrics,
        *,
        presign: Presign | None = None,
    ) -> None:
        """Take the corridor's two ends; with `presign` viewers fetch stored clips from there."""
        self._gate = gate
        self._presign = presign
        self._locator = locator
        self._sender = sender
        self._metrics = metrics
        self._max_viewers = settings.max_viewers
        self.policy = ReplyPolicy(
            settings.cache_control, settings.cors_origin, settings.edge_checks_links
        )
        self._viewers = 0
        self.tells = settings.log_level == "debug"
        """Whether each reply is told to the log when it begins."""
        self._breakages = Breakages(locator, metrics)

    async def answer(self, exchange: Exchange, request_id: str, query: str) -> Sent:
        """Answer one request. Raises any FirstviewError before the first byte is sent."""
        request = exchange.request
        admitted = exchange.is_private = self._gate.admits(request_id, query)
        if self._presign is not None and request.method == "GET" and "download" not in query:
            address = await self._elsewhere(request_id, admitted=admitted)
            if address is not None:
                return await exchange.send_plain(302, self._redirection(address))
        file: ServedFile | None = self._locator.hot(request_id)
        if file is None and admitted:
            file = self._locator.hot_gated(request_id)
        if request.method == "HEAD":
            known = (
                await self._locator.facts(request_id, admitted=admitted)
                if file is None
                else Known(file.facts, file.tier, hit=True, gated=file.is_gated)
            )
            decided = plan(request.headers, known.facts, method="HEAD")
            return await self._send_head(exchange, known, decided, query)
        if file is not None:
            view = View(facts=file.facts, tier=file.tier, file=file.acquire())
            return await self._send_view(exchange, view, query)
        if any(name in request.headers for name in _CONDITIONS):
            near = await self._locator.known(request_id, admitted=admitted)
            if near is not None:
                decided = plan(request.headers, near.facts, method="GET")
                if not decided[2]:
                    return await self._send_head(exchange, near, decided, query)
        if self._viewers >= self._max_viewers:
            self._metrics.shed.labels("max_viewers").inc()
            raise Overloaded
        with self._counted():
            asked = wanted(request.headers.get("Range"))
            view = await self._locator.find(request_id, asked, admitted=admitted)
            self._metrics.joins.inc(view.collapsed)
            return await self._send_view(exchange, view, query)

    async def _elsewhere(self, request_id: str, *, admitted: bool) -> str | None:
        """Where a stored clip is to be fetched from instead; None if it is served from here."""
        if self._presign is None or not await self._locator.is_stored(
            request_id, admitted=admitted
        ):
            return None
        try:
            return await self._presign(keys.clip_key(request_id))
        except BucketError:  # its credentials cannot be had just now; what is here needs none
            return None

    def _redirection(self, address: str) -> bytes:
        fields = [("Location", address), ("Cache-Control", "no-store")]
        return headers.block([*fields, *headers.cors_fields(self.policy.cors_origin)])

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
        status, lines, _ = decided
        cache_status = headers.cache_status(tier, hit=known.hit)
        head = headers.head(
            status,
            stable(self.policy, known.facts, cache_status, gated=known.gated)
            + lines
            + exchange.fields(),
            _download(query, known.facts.request_id),
        )
        await exchange.viewer().send(head)
        exchange.cache, exchange.bytes = "hit" if known.hit else "miss", 0
        self._metrics.first_byte.labels(tier).observe(exchange.spent())
        self._metrics.reply.labels(tier).observe(exchange.spent())
        return exchange.sent(status, tier)

    async def _send_view(self, exchange: Exchange, view: View, query: str) -> Sent:
        try:
            status, lines, segments = plan(exchange.request.headers, view.facts, method="GET")
            head = headers.head(
                status,
                self._stable(view) + lines + exchange.fields(),
                _download(query, view.facts.request_id),
            )
            if self.tells:
                exchange.begun(status, view.facts.request_id, _cache_status(view))
            exchange.tier, exchange.cache = view.tier, _cache(view)
            viewer = exchange.viewer()
            before = viewer.sent
            try:
                await viewer.send(head, more=_follows(view, segments))
                exchange.answered(status)
                self._metrics.first_byte.labels(view.tier).observe(exchange.spent())
                await self._send_body(viewer, view, segments)
                self._metrics.reply.labels(view.tier).observe(exchange.spent())
            except FirstviewError as error:
                return self._broken(exchange, view, error)
            except BaseException:  # told to stop: what was sent must not look whole
                exchange.connection.reset()
                raise
            finally:
                exchange.bytes = sent = max(0, viewer.sent - before - len(head))
                self._metrics.sent(view.tier).value += sent
        finally:
            view.release()
        return exchange.sent(status, view.tier)

    async def _send_body(
        self, viewer: ViewerSocket, view: View, segments: tuple[bytes | ByteRange, ...]
    ) -> None:
        for segment in segments:
            if isinstance(segment, bytes):
                await viewer.send(segment, more=view.hit)
            else:
                await self._sender.send(viewer, view, segment.start, segment.stop)

    def _broken(self, exchange: Exchange, view: View, error: FirstviewError) -> Sent:
        """The reply cannot be finished: reset the connection, never end it cleanly."""
        exchange.ended = error.slug
        self._breakages.note(
            error,
            exchange=exchange.id,
            path=exchange.path,
            request_id=view.facts.request_id,
            tier=view.tier,
            hit=view.hit,
        )
        exchange.connection.reset()
        return Sent(keep_alive=False)

    def _stable(self, view: View) -> bytes:
        if view.file is not None:
            return stable_of(view.file, self.policy)
        return stable(self.policy, view.facts, _cache_status(view), gated=view.gated)


def _follows(view: View, segments: tuple[bytes | ByteRange, ...]) -> bool:
    """Whether the first of these can follow a reply's head at once, so that both go out as one."""
    if not segments:
        return False
    return view.hit or (isinstance(segments[0], ByteRange) and view.has(segments[0].start))


def _cache(view: View) -> str:
    if view.hit:
        return "hit"
    return "joined" if view.collapsed else "miss"


def _cache_status(view: View) -> str:
    tier: Tier = view.tier  # type: ignore[assignment]
    if view.hit:
        return headers.cache_status(tier, hit=True)
    return headers.cache_status(
        tier,
        hit=False,
        fwd_status=None if view.collapsed else 200,
        stored=view.flight is not None and view.flight.spool is not None,
        collapsed=view.collapsed,
    )


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
