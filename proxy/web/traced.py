"""Views with a span around each, part of the trace that their request belongs to.

Belongs here: what a view's span says, and W3C's `traceparent`. Must not know: how a request is
answered. Without a tracer none of this is there.

Plain hits are answered without a span, in less time than one takes, unless their request is a part
of somebody's trace already: those take the other lane.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from proxy.delivery.traced import trace_of
from proxy.web.access import Access
from proxy.web.connection import Connection
from proxy.web.exchange import Exchange
from proxy.web.hits import Hits
from proxy.web.machine import Sent
from proxy.web.public import Public

if TYPE_CHECKING:  # an optional extra
    from opentelemetry.trace import Tracer

_IN_A_TRACE: Final = re.compile(rb"\r\ntraceparent:", re.IGNORECASE)
_FAILED: Final = 500


class TracedHits(Hits):
    """The fast lane, which leaves requests that are a part of a trace to the other one."""

    def answer(self, connection: Connection, data: bytes) -> bool:
        """See `Hits.answer`."""
        return _IN_A_TRACE.search(data) is None and super().answer(connection, data)


class TracedPublic(Public):
    """Answers requests, each within a span of its own."""

    def __init__(self, tracer: Tracer, *parts: Any, access: Access) -> None:  # noqa: ANN401 - as they are
        """Take the tracer, and what `Public` takes. Raises ImportError without the extra."""
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415 - an optional extra
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - the same
            TraceContextTextMapPropagator,
        )

        super().__init__(*parts, access=access)
        self._tracer = tracer
        self._server, self._error = SpanKind.SERVER, StatusCode.ERROR
        self._propagator = TraceContextTextMapPropagator()

    async def _answer(self, exchange: Exchange) -> Sent:
        fields = exchange.request.headers
        carrier = {name: fields[name] for name in ("traceparent", "tracestate") if name in fields}
        with self._tracer.start_as_current_span(
            "view", context=self._propagator.extract(carrier), kind=self._server
        ) as span:
            exchange.trace = trace_of(span)
            try:
                return await super()._answer(exchange)
            finally:
                said = {
                    "http.request.method": exchange.request.method,
                    "url.path": exchange.path,
                    "http.response.status_code": exchange.status,
                    "client.address": exchange.client,
                    "firstview.exchange": exchange.id,
                    "firstview.request_id": exchange.request_id,
                    "firstview.tier": exchange.tier,
                    "firstview.cache": exchange.cache,
                    "firstview.bytes": exchange.bytes,
                    "firstview.range": fields.get("Range"),
                    "firstview.ended": exchange.ended,
                }
                known = {name: value for name, value in said.items() if value is not None}
                span.set_attributes(known)
                if (exchange.status or 0) >= _FAILED or exchange.ended is not None:
                    span.set_status(self._error, exchange.ended)
