"""Views with a span around each, part of the trace that their request belongs to.

Belongs here: what a view's span says, and W3C's `traceparent`. Must not know: how a request is
answered. Without a tracer none of this is there.

Plain hits are answered without a span, in less time than one takes, unless their request is a part
of somebody's trace already: those take the other lane.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from proxy.delivery.traced import FAILED, fail, spanned, trace_of
from proxy.telemetry.guard import Guard
from proxy.telemetry.values import OF_VIEWERS
from proxy.web.access import Access
from proxy.web.connection import Connection
from proxy.web.exchange import Exchange
from proxy.web.hits import Hits
from proxy.web.machine import Sent
from proxy.web.public import HEALTH, Public

if TYPE_CHECKING:  # an optional extra
    from opentelemetry.trace import Tracer

_IN_A_TRACE: Final = re.compile(rb"\r\ntraceparent:", re.IGNORECASE)
_LONGEST: Final = 200
"""Characters of what a client sends."""
_guard = Guard()


class TracedHits(Hits):
    """The fast lane, which leaves requests that are a part of a trace to the other one."""

    def answer(self, connection: Connection, data: bytes) -> bool:
        """See `Hits.answer`."""
        return _IN_A_TRACE.search(data) is None and super().answer(connection, data)


class TracedPublic(Public):
    """Answers requests, each within a span of its own."""

    def __init__(self, tracer: Tracer, *parts: Any, access: Access) -> None:  # noqa: ANN401 - as they are
        """Take the tracer, and what `Public` takes. Raises ImportError without the extra."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an optional extra
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - the same
            TraceContextTextMapPropagator,
        )

        super().__init__(*parts, access=access)
        self._tracer = tracer
        self._server = SpanKind.SERVER
        self._propagator = TraceContextTextMapPropagator()

    async def _answer(self, exchange: Exchange) -> Sent:
        if exchange.path == HEALTH:  # asked every few seconds, and nobody's view
            return await super()._answer(exchange)
        fields = exchange.request.headers
        carrier = {name: fields[name] for name in ("traceparent", "tracestate") if name in fields}
        context = self._propagator.extract(carrier)
        with spanned(self._tracer, "view", context=context, kind=self._server) as span:
            exchange.trace = trace_of(span)
            try:
                return await super()._answer(exchange)
            finally:
                said = {
                    "http.request.method": _safe(exchange.request.method),
                    "url.path": _safe(exchange.path),
                    "http.response.status_code": exchange.status,
                    "client.address": exchange.client,
                    "firstview.exchange": exchange.id,
                    "firstview.request_id": exchange.request_id,
                    "firstview.tier": exchange.tier,
                    "firstview.cache": exchange.cache,
                    "firstview.bytes": exchange.bytes,
                    "firstview.range": _safe(fields.get("Range")),
                    "firstview.ended": exchange.ended,
                }
                known = {name: value for name, value in said.items() if value is not None}
                span.set_attributes(known)
                if exchange.request_id is None:
                    span.update_name("request")
                broke = exchange.ended is not None and exchange.ended not in OF_VIEWERS
                if broke or (exchange.status or 0) >= FAILED:
                    fail(span, exchange.ended)


def _safe(text: str | None) -> str | None:
    return None if text is None else _guard.text(text)[:_LONGEST]
